"""Runs are made in order, once each; killed ones go on; nothing is kept under a wrong key."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tables.keys import Ground
from benchmarks.tables.measure import measure_runs
from benchmarks.tables.plan import PlannedRun, Setting, plan_runs
from benchmarks.tables.row_file import RowFile, read_row_file
from benchmarks.tables.run_store import RunStore
from training.errors import DataError
from training.run import read_config

ROWS = """
title = "Rows"
order = []
reference = "full"
[rows]
floor = { floor = true }
full = {}
mean = { variant = "gmp", recipe = { value_weight = 0.0, attribute_weight = 0.0 } }
"""
GROUND = Ground("d", "w", "t", "e")
SETTING = Setting("shop", "small", None)


class Killed(BaseException):
    """What a kill is to the code that it hits."""


@dataclass
class Quick:
    """Trains and evaluates nothing; notes what it was asked."""

    asked: list[tuple[str, str, int, bool]] = field(default_factory=list)
    kill: str = ""

    def train(self, run: PlannedRun, config: Path, out: Path, resume: bool) -> dict[str, Any]:
        self.asked.append(("train", run.row.name, run.config.seed, resume))
        assert read_config(config) == run.config
        (out / "best").mkdir(exist_ok=True)
        (out / "best" / "config.json").write_text("{}")
        if self.kill == "early":
            raise Killed
        (out / "last.pt").write_text("{}")
        if self.kill == "train":
            raise Killed
        return {
            "images": 9, "best_epoch": 1, "validation_map": 50.0, "seconds": 2.5,
            "setup_seconds": None if resume else 1.0, "epochs": [{}, {}], "run": str(out),
        }  # fmt: skip

    def evaluate(self, run: PlannedRun, out: Path) -> dict[str, Any]:
        self.asked.append(("evaluate", run.row.name, run.config.seed, run.likeness_only))
        if self.kill == "evaluate":
            raise Killed
        return {"all": {"map": 60.0}, "checkpoint": str(out)}

    def floor(self, run: PlannedRun) -> dict[str, Any]:
        self.asked.append(("floor", run.row.name, run.config.seed, run.likeness_only))
        return {"all": {"map": 20.0}}


@pytest.fixture
def table(tmp_path: Path) -> RowFile:
    path = tmp_path / "rows.toml"
    path.write_text(ROWS)
    return read_row_file(path)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "work")


def make(table: RowFile, store: RunStore, runner: Quick, seeds: int = 2, **grounds: str) -> None:
    ground = replace(GROUND, **grounds)
    runs = plan_runs(table, table.chosen(None), seeds, SETTING, ground)
    measure_runs(runs, store, runner, "cpu", lambda line: None, ground, lambda: ground)


def test_all_rows_of_a_seed_come_before_the_next_seed(table: RowFile, store: RunStore) -> None:
    runner = Quick()
    make(table, store, runner)
    assert runner.asked == [
        ("floor", "floor", 0, True),
        ("train", "full", 0, False), ("evaluate", "full", 0, False),
        ("train", "mean", 0, False), ("evaluate", "mean", 0, True),
        ("train", "full", 1, False), ("evaluate", "full", 1, False),
        ("train", "mean", 1, False), ("evaluate", "mean", 1, True),
    ]  # fmt: skip
    run = plan_runs(table, table.chosen("full"), 1, SETTING, GROUND)[0]
    record = store.measured(run)
    assert record is not None
    assert record["all"] == {"map": 60.0}
    assert record["training"]["seconds"] == 2.5
    assert record["training"]["epochs"] == 2
    assert "checkpoint" not in record
    assert str(store.work) not in json.dumps(record)


def test_what_is_done_is_skipped_and_more_seeds_add_to_it(table: RowFile, store: RunStore) -> None:
    make(table, store, Quick())
    again = Quick()
    make(table, store, again)
    assert again.asked == []
    make(table, store, again, seeds=3)
    assert {asked[2] for asked in again.asked} == {2}


def test_fault_35_other_evaluation_code_evaluates_again_and_trains_nothing(
    table: RowFile, store: RunStore
) -> None:
    make(table, store, Quick(), seeds=1)
    again = Quick()
    make(table, store, again, seeds=1, evaluation_code="x")
    assert [asked[0] for asked in again.asked] == ["floor", "evaluate", "evaluate"]
    make(table, store, again, seeds=1, training_code="x")
    assert [asked[0] for asked in again.asked[3:]] == [
        "floor", "train", "evaluate", "train", "evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kill", "then"),
    [
        # Killed before there was a state: from the start, in an empty folder.
        ("early", [("train", "full", 0, False), ("evaluate", "full", 0, False)]),
        ("train", [("train", "full", 0, True), ("evaluate", "full", 0, False)]),
        ("evaluate", [("evaluate", "full", 0, False)]),
    ],
)
def test_a_killed_run_goes_on(
    table: RowFile, store: RunStore, kill: str, then: list[tuple[str, str, int, bool]]
) -> None:
    with pytest.raises(Killed):
        make(table, store, Quick(kill=kill), seeds=1)
    again = Quick()
    make(table, store, again, seeds=1)
    assert again.asked[: len(then)] == then
    assert ("floor", "floor", 0, True) not in again.asked


def test_fault_35_a_broken_record_is_measured_again(table: RowFile, store: RunStore) -> None:
    make(table, store, Quick(), seeds=1)
    for path in (store.work / "measured").iterdir():
        path.write_text(path.read_text()[:-9])
    again = Quick()
    make(table, store, again, seeds=1)
    assert [asked[0] for asked in again.asked] == ["floor", "evaluate", "evaluate"]


def test_rows_of_one_configuration_share_their_run(
    table: RowFile, store: RunStore, tmp_path: Path
) -> None:
    make(table, store, Quick(), seeds=1)
    (tmp_path / "other.toml").write_text(ROWS.replace("full", "whole"))
    again = Quick()
    make(read_row_file(tmp_path / "other.toml"), store, again, seeds=1)
    assert again.asked == []


def test_code_that_changes_meanwhile_stops_the_table(table: RowFile, store: RunStore) -> None:
    found = iter([GROUND, GROUND, replace(GROUND, training_code="x")])
    runner = Quick()
    runs = plan_runs(table, table.chosen(None), 1, SETTING, GROUND)
    with pytest.raises(DataError, match="the training code changed while"):
        measure_runs(runs, store, runner, "cpu", lambda line: None, GROUND, lambda: next(found))
    # The floor was kept; the run that was trained under the old code is not evaluated.
    assert [asked[0] for asked in runner.asked] == ["floor", "train"]
