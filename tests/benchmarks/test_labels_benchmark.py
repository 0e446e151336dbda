"""`retrieve bench labels`: so many labels are known and no others; ways to choose against loops."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_catalogue import write_tiny_catalogue

from benchmarks import labels as bench
from benchmarks.labels import (
    LabelRuns,
    Pool,
    drawn,
    farthest_first,
    knowing_only,
    labelled_rows,
    least_sure,
    uncertainty,
    unsure_and_varied,
)
from benchmarks.tables.options import Setting
from retrieval.cli import _run
from training.checkpoint import load_checkpoint
from training.schema import Attribute, Schema

ROWS = """
reference = "m2fashion"
[base.model]
stage = "layer2"
grid = 4
dim = 16
[base.recipe]
epochs = 1
batch_size = 6
[base.preprocessing]
size = 32
[rows]
m2fashion = {}
"""
SCHEMA = Schema((Attribute("a", ("x", "y", "z")), Attribute("b", ("u", "v", "w"), multi=True)))


@pytest.fixture
def pool() -> Pool:
    rng = np.random.default_rng(0)
    chances = rng.random((40, 6)).astype(np.float32)
    chances[:, :3] /= chances[:, :3].sum(axis=1, keepdims=True)
    nuance = rng.normal(size=(40, 4)).astype(np.float32)
    return Pool(SCHEMA, chances, nuance, np.arange(40) % 5 == 0)


def entropy(pool: Pool, row: int) -> float:
    """Of one picture, value by value."""
    a = sum(-p * math.log(p) / math.log(3) for p in map(float, pool.chances[row, :3]))
    both = [(p, 1 - p) for p in map(float, pool.chances[row, 3:])]
    b = sum(-q * math.log2(q) for pair in both for q in pair) / 3
    return (a + b) / 2


def test_the_least_sure_are_those_of_the_highest_entropy(pool: Pool) -> None:
    slow = [entropy(pool, row) for row in range(40)]
    assert uncertainty(SCHEMA, pool.chances) == pytest.approx(slow, rel=1e-5)
    free = sorted((row for row in range(40) if row % 5), key=lambda row: -slow[row])
    assert least_sure(pool, 7, 0).tolist() == free[:7]
    even = np.array([[1 / 3] * 3 + [0.5] * 3, [1, 0, 0, 0, 1, 0]], dtype=np.float32)
    assert uncertainty(SCHEMA, even) == pytest.approx([1, 0], abs=1e-6)


def test_the_farthest_is_taken_first(pool: Pool) -> None:
    points = np.hstack([pool.chances, pool.nuance]).astype(np.float64)
    near, chosen = [row for row in range(40) if row % 5 == 0], []
    for _ in range(9):
        gaps = {
            row: min(float(((points[row] - points[other]) ** 2).sum()) for other in near)
            for row in range(40)
            if row not in near
        }
        chosen.append(max(gaps, key=lambda row: gaps[row]))
        near.append(chosen[-1])
    assert farthest_first(pool, 9, 0).tolist() == chosen


def test_varied_ones_are_unlike_each_other_and_unsure(pool: Pool) -> None:
    # Rows 1 to 4 are sure, 6 to 9 and so on one point each group of four: no group comes twice.
    groups = np.arange(40) // 5
    chances = np.full((40, 6), 0.4, dtype=np.float32)
    chances[:5] = [1, 0, 0, 0, 0, 1]
    nuance = np.eye(8, dtype=np.float32)[groups]
    same = replace(pool, chances=chances, nuance=nuance)
    for seed in range(20):
        found = unsure_and_varied(same, 7, seed)
        assert sorted(groups[found]) == list(range(1, 8))
        assert not same.known[found].any()
    assert unsure_and_varied(pool, 7, 3).tolist() == unsure_and_varied(pool, 7, 3).tolist()
    assert len(set(unsure_and_varied(pool, 32, 0).tolist())) == 32


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelRuns:
    file = tmp_path / "rows.toml"
    file.write_text(ROWS)
    monkeypatch.setattr(bench, "MAP", file)
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 60)
    about = {"results": tmp_path, "work": tmp_path / "work", "backbone": "small"}
    return LabelRuns.of(file, Setting(name=str(catalogue), root=None, workers=0, **about))


def test_what_is_not_labelled_leaves_no_trace(runs: LabelRuns, tmp_path: Path) -> None:
    whole = runs.dataset
    rows = drawn(labelled_rows(whole), 0)[:12]
    known = knowing_only(whole, rows)
    train = whole.splits == "train"
    assert set(np.flatnonzero(known.labels.any(axis=1) & train)) == set(rows)
    assert set(np.flatnonzero((known.category >= 0) & train)) == set(rows)
    assert (known.labels[rows] == whole.labels[rows]).all()
    assert (known.labels[~train] == whole.labels[~train]).all()
    assert known.paths == whole.paths

    # Other labels of all others: the same run, and the same model if it is trained again.
    labels, category = whole.labels.copy(), whole.category.copy()
    hidden = np.setdiff1d(np.flatnonzero(train), rows)
    labels[hidden], category[hidden] = np.roll(labels[hidden], 1, 1), 1 - category[hidden]
    other = replace(runs, dataset=replace(whole, labels=labels, category=category))
    hashes = set()
    for number, one in enumerate((runs, other)):
        own, run = one.trained_on(rows, 0)
        assert run.training == runs.trained_on(rows, 0)[1].training
        assert run.training != runs.trained_on(rows[:11], 0)[1].training
        own = replace(own, setting=replace(own.setting, work=tmp_path / str(number)))
        own.trained(run, "")
        hashes.add(load_checkpoint(own.folder(run)).hash)
    assert len(hashes) == 1


def test_a_row_a_number_of_labels_and_a_way(
    runs: LabelRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(bench, "START", 10)
    options = ["--dataset", str(runs.dataset.root), "--work", str(tmp_path / "work")]
    options += ["--results", str(tmp_path), "--workers", "0", "--backbone", "small"]
    options += ["--sizes", "20,500", "--choices", "random,unsure", "--seeds", "1"]
    assert _run(["bench", "labels", *options], False) == 0
    data = json.loads((tmp_path / "labels-tiny-small.json").read_text())
    told = [(row["labelled"], row["seed"], row.get("way")) for row in data["rows"]]
    assert told == [
        (count, 0, way) for count, way in ((20, None), (40, None), (20, "random"), (20, "unsure"))
    ]
    assert all(row["test"]["map"] > 0 and row["valid"]["accuracy"] >= 0 for row in data["rows"])
    # Random ones are the next of the same draw, which is the run of twice as many.
    curve = next(row for row in data["rows"] if row["labelled"] == 20)
    assert next(row for row in data["rows"] if row.get("way") == "random")["test"] == curve["test"]
    assert len(list((tmp_path / "work" / "runs").glob("m2fashion-*"))) == 4
    out = capsys.readouterr().out
    assert "| 40 |" in out
    assert "| unsure less random |" in out
