"""The table commands from one end to the other, on a small wardrobe and for one epoch."""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.tables import measure
from benchmarks.tables.row_file import MAP
from benchmarks.wardrobe.write import write_catalogue
from retrieval.cli import _run

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


@dataclass(frozen=True)
class Done:
    """Of a command: its exit code, what it printed, and the commands that it ran in turn."""

    returncode: int
    stdout: str
    stderr: str
    ran: list[str]


@pytest.fixture
def bench(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """`retrieve bench`, and what it runs, in this process."""
    ran: list[str] = []

    def retrieve(*words: object, capture: bool) -> str:
        assert capture  # else its output would be among the table's
        ran.append(str(words[0]))
        with redirect_stdout(io.StringIO()) as out:
            assert _run([str(word) for word in words], False) == 0
        return out.getvalue()

    def run(*words: str) -> Done:
        ran.clear()
        code = _run(["bench", *words], False)
        out, err = capsys.readouterr()
        return Done(code, out, err, list(ran))

    monkeypatch.setattr(measure, "retrieve", retrieve)
    monkeypatch.chdir(folder)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wardrobe, a row file, and the table `map` of it with one seed."""
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


def test_from_one_end_to_the_other(folder: Path, bench: Callable[..., Done]) -> None:
    # First one row, whose table holds it alone.
    stem = folder / "results" / "map-shop-small-rows-1-epochs"
    done = bench("map", *options("--rows", "triplet"))
    assert done.returncode == 0, done.stderr
    data = json.loads(stem.with_suffix(".json").read_text())
    assert [row["model"] for row in data["rows"]] == ["triplet"]

    # Then the others; its run is not made again.
    done = bench("map", *options())
    assert done.returncode == 0, done.stderr
    assert "[2/3] triplet, seed 0: done before" in done.stderr
    assert done.ran == ["train", "evaluate"]
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
    again = bench("map", *options())
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.ran == []

    # Another table rests on the same runs, and none overwrites another's files.
    done = bench("ablations", *options())
    assert done.returncode == 0, done.stderr
    assert done.ran == []
    assert (folder / "results" / "ablations-shop-small-rows-1-epochs.json").is_file()
    own = ["--rows-file", str(MAP), "--rows", "floor", "--work", "own"]
    done = bench("map", *options(*own))
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
def test_refusals(
    bench: Callable[..., Done], words: tuple[str, ...], code: int, message: str
) -> None:
    done = bench("map", *options(*words))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
