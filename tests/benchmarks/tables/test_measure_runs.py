"""Runs are made in order, once each; killed ones go on; nothing is kept under a wrong key."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.tables import measure
from benchmarks.tables.keys import Ground
from benchmarks.tables.measure import Run, Runs
from benchmarks.tables.options import Setting
from benchmarks.tables.row_file import RowFile, read_row_file
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.run import read_config
from training.schema import Attribute, Schema

ROWS = """
title = "Rows"
reference = "full"
[rows]
floor = { floor = true }
full = {}
mean = { variant = "gmp", recipe = { value_weight = 0.0, attribute_weight = 0.0 } }
"""
GROUND = Ground("d", "w", "t", "e")
DATASET = Dataset(
    name="shop",
    root=Path(),
    schema=Schema((Attribute("colour", ("red", "blue")),)),
    paths=[],
    labels=np.zeros((0, 2), dtype=np.int8),
    category=np.zeros(0, dtype=np.int64),
    category_names=(),
    splits=np.zeros(0, dtype=str),
)


class Killed(BaseException):
    """What a kill is to the code that it hits."""


@dataclass
class Asked:
    """What was asked, and where a kill hits."""

    calls: list[tuple[str, str, int, bool]] = field(default_factory=list)
    kill: str = ""


class Quick(Runs):
    """Trains and evaluates nothing; notes what it was asked."""

    asked: Asked

    def train(self, run: Run, resume: bool) -> dict[str, Any]:
        self.asked.calls.append(("train", run.row.name, run.config.seed, resume))
        out = self.folder(run)
        assert read_config(out / "config.toml") == run.config
        (out / "best").mkdir(exist_ok=True)
        (out / "best" / "config.json").write_text("{}")
        if self.asked.kill == "early":
            raise Killed
        (out / "last.pt").write_bytes(b"")
        if self.asked.kill == "train":
            raise Killed
        return {
            "images": 9, "best_epoch": 1, "validation_map": 50.0, "seconds": 2.5,
            "setup_seconds": None if resume else 1.0, "epochs": [{}, {}], "run": str(out),
        }  # fmt: skip

    def evaluate(self, run: Run) -> dict[str, Any]:
        self.asked.calls.append(("evaluate", run.row.name, run.config.seed, run.likeness_only))
        if self.asked.kill == "evaluate":
            raise Killed
        return {"all": {"map": 60.0}, "checkpoint": str(self.folder(run))}

    def floor(self, run: Run) -> dict[str, Any]:
        self.asked.calls.append(("floor", run.row.name, run.config.seed, run.likeness_only))
        return {"all": {"map": 20.0}}


@pytest.fixture
def table(tmp_path: Path) -> RowFile:
    path = tmp_path / "rows.toml"
    path.write_text(ROWS)
    return read_row_file(path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def quick(table: RowFile, work: Path, asked: Asked, seeds: int = 2, **grounds: str) -> Quick:
    setting = Setting(
        name="shop", root=None, results=work, work=work, backbone="small", seeds=seeds, device="cpu"
    )
    runs = Quick(table, setting, DATASET, replace(GROUND, **grounds))
    object.__setattr__(runs, "asked", asked)
    return runs


def make(table: RowFile, work: Path, asked: Asked, seeds: int = 2, **grounds: str) -> Quick:
    runs = quick(table, work, asked, seeds, **grounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "ground", lambda dataset, weights: runs.ground)
        runs.measure()
    return runs


def test_all_rows_of_a_seed_come_before_the_next_seed(table: RowFile, work: Path) -> None:
    asked = Asked()
    runs = make(table, work, asked)
    assert asked.calls == [
        ("floor", "floor", 0, True),
        ("train", "full", 0, False), ("evaluate", "full", 0, False),
        ("train", "mean", 0, False), ("evaluate", "mean", 0, True),
        ("train", "full", 1, False), ("evaluate", "full", 1, False),
        ("train", "mean", 1, False), ("evaluate", "mean", 1, True),
    ]  # fmt: skip
    record = runs.measured(runs.chosen("full")[0])
    assert record is not None
    assert record["all"] == {"map": 60.0}
    assert record["training"]["seconds"] == 2.5
    assert record["training"]["epochs"] == 2
    assert "checkpoint" not in record
    assert str(work) not in json.dumps(record)


def test_what_is_done_is_skipped_and_more_seeds_add_to_it(table: RowFile, work: Path) -> None:
    make(table, work, Asked())
    again = Asked()
    make(table, work, again)
    assert again.calls == []
    make(table, work, again, seeds=3)
    assert {call[2] for call in again.calls} == {2}


def test_fault_35_other_evaluation_code_evaluates_again_and_trains_nothing(
    table: RowFile, work: Path
) -> None:
    make(table, work, Asked(), seeds=1)
    again = Asked()
    make(table, work, again, seeds=1, evaluation_code="x")
    assert [call[0] for call in again.calls] == ["floor", "evaluate", "evaluate"]
    make(table, work, again, seeds=1, training_code="x")
    assert [call[0] for call in again.calls[3:]] == [
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
    table: RowFile, work: Path, kill: str, then: list[tuple[str, str, int, bool]]
) -> None:
    with pytest.raises(Killed):
        make(table, work, Asked(kill=kill), seeds=1)
    again = Asked()
    make(table, work, again, seeds=1)
    assert again.calls[: len(then)] == then
    assert ("floor", "floor", 0, True) not in again.calls


def test_fault_35_a_broken_record_is_measured_again(table: RowFile, work: Path) -> None:
    make(table, work, Asked(), seeds=1)
    for path in (work / "measured").iterdir():
        path.write_text(path.read_text()[:-9])
    again = Asked()
    make(table, work, again, seeds=1)
    assert [call[0] for call in again.calls] == ["floor", "evaluate", "evaluate"]


def test_rows_of_one_configuration_share_their_run(
    table: RowFile, work: Path, tmp_path: Path
) -> None:
    make(table, work, Asked(), seeds=1)
    (tmp_path / "other.toml").write_text(ROWS.replace("full", "whole"))
    again = Asked()
    make(read_row_file(tmp_path / "other.toml"), work, again, seeds=1)
    assert again.calls == []


def test_code_that_changes_meanwhile_stops_the_table(
    table: RowFile, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([GROUND, GROUND, replace(GROUND, training_code="x")])
    monkeypatch.setattr(measure, "ground", lambda dataset, weights: next(found))
    asked = Asked()
    with pytest.raises(DataError, match="the training code changed while"):
        quick(table, work, asked, 1).measure()
    # The floor was kept; the run that was trained under the old code is not evaluated.
    assert [call[0] for call in asked.calls] == ["floor", "train"]
