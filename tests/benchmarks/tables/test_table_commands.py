"""The table commands from one end to the other, on a small wardrobe and for one epoch."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.tables.row_file import MAP

ROWS = """
title = "Mini"
reference = "m2fashion"
[base.model]
grid = 4
[base.recipe]
epochs = 2
[base.preprocessing]
size = 48
[recipes.sampled]
sampling = "triplets"
triplets_per_epoch = 64
batch_size = 16
value_weight = 0.0
attribute_weight = 0.0
[rows]
floor = { title = "pooled features, untrained", floor = true }
triplet = { title = "Triplet", variant = "triplet", recipes = ["sampled"] }
m2fashion = { title = "M2Fashion", model = { dim = 32 } }
"""


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retrieval.cli", "bench", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wardrobe, a row file, and the table `map` of it with one seed."""
    from benchmarks.wardrobe.write import write_catalogue

    folder = tmp_path_factory.mktemp("tables")
    write_catalogue(folder / "shop", 300, size=48, seed=1)
    (folder / "rows.toml").write_text(ROWS)
    return folder


def options(*more: str) -> Sequence[str]:
    return [
        *("--dataset", "shop", "--backbone", "small", "--epochs", "1", "--workers", "0"),
        *("--rows-file", "rows.toml", "--work", "work", "--results", "results", "--seeds", "1"),
        *("--device", "cpu", *more),
    ]


def test_from_one_end_to_the_other(folder: Path) -> None:
    # First one row, whose table holds it alone.
    stem = folder / "results" / "map-shop-small-rows-1-epochs"
    done = bench(folder, "map", *options("--rows", "triplet"))
    assert done.returncode == 0, done.stderr
    data = json.loads(stem.with_suffix(".json").read_text())
    assert [row["model"] for row in data["rows"]] == ["triplet"]

    # Then the others; its run is not made again.
    done = bench(folder, "map", *options())
    assert done.returncode == 0, done.stderr
    assert "[2/3] triplet, seed 0: done before" in done.stderr
    assert done.stderr.count("$ retrieve train") == 1
    written = json.loads(stem.with_suffix(".json").read_text())
    assert [row["model"] for row in written["rows"]] == ["floor", "triplet", "m2fashion"]
    for row in written["rows"]:
        assert 0 < row["all"] < 100
        assert len(row["attributes"]) == 9
        assert row["parameters"] > 100_000
        assert row["floor"] or row["train_seconds"] > 0
        assert row["likeness_only"] is (row["model"] != "m2fashion")
    assert [row["likeness"] is None for row in written["rows"]] == [True, False, False]
    assert 0 < written["rows"][2]["likeness"]["query"]["mrr"] < 1
    assert str(folder) not in stem.with_suffix(".json").read_text()
    markdown = stem.with_suffix(".md").read_text()
    assert done.stdout.strip() == markdown.strip()
    assert "- pictures of 48 pixels a side\n- epochs: 1;" in markdown
    assert "| All | MRR | hard MRR |" in markdown
    assert "ranked by likeness alone" in markdown

    # A second run makes nothing and writes the same.
    again = bench(folder, "map", *options())
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "$ retrieve" not in again.stderr

    # Another table rests on the same runs, and none overwrites another's files.
    done = bench(folder, "ablations", *options())
    assert done.returncode == 0, done.stderr
    assert "$ retrieve" not in done.stderr
    assert (folder / "results" / "ablations-shop-small-rows-1-epochs.json").is_file()
    own = ["--rows-file", str(MAP), "--rows", "floor", "--work", "own"]
    done = bench(folder, "map", *options(*own))
    assert done.returncode == 0, done.stderr
    assert (folder / "results" / "map-shop-small-1-epochs.json").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--rows", "tripplet"), 2, "unknown row 'tripplet'"),
        (("--rows-file", "none.toml"), 2, "cannot read the rows in none.toml"),
        (("--weights", "none.safetensors"), 3, "none.safetensors does not exist"),
        (("--seeds", "0"), 2, "--seeds"),
        (("--dataset", "shopp"), 2, "shopp"),
    ],
)
def test_refusals(folder: Path, words: tuple[str, ...], code: int, message: str) -> None:
    done = bench(folder, "map", *options(*words))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
