"""A small table made by hand: means, spread, differences and published figures in cells."""

import statistics
from typing import Any

import pytest

from benchmarks.models.table3 import markdown as table_3
from benchmarks.tables.result import markdown
from benchmarks.tables.summary import Column, differences, means

Data = dict[str, Any]

COMBINED: dict[str, Any] = {
    "same": {
        "map": 40.0, "chance": 10.0, "precision_at_10": 0.7, "precision_ceiling": 0.9,
        "precision_chance": 0.1, "queries": 1200,
    },
    "but": {
        "precision_at_10": 0.5, "precision_ceiling": 0.8, "precision_chance": 0.05,
        "keep_at_10": 0.6, "keep_chance": 0.3, "queries": 1000,
    },
    "combinations": 50, "queries_per_combination": 20, "seed": 0,
}  # fmt: skip

CONFIG: dict[str, Any] = {"model": {}, "recipe": {"epochs": 3}, "preprocessing": {"size": 64}}


def entry(model: str, seed: int, colour: float, shape: float, **other: Any) -> Data:
    return {
        "model": model,
        "title": model.upper(),
        "floor": False,
        "seed": seed,
        "all": (colour + 3 * shape) / 4,  # three times as many queries
        "attributes": {"colour": colour, "shape": shape},
        "train_seconds": 100.0 + seed,
        "combinations": COMBINED,
        "likeness_only": False,
        "commit": "abc1234",
        "machine": "x86_64, 2 cores, no GPU",
        "train_machine": "x86_64, 2 cores, no GPU",
        **other,
    }


@pytest.fixture
def result() -> Data:
    counted = {"queries": 1000, "candidates": 1000, "queries_without_relevant": 0}
    floor = {"floor": True, "train_seconds": None, "train_machine": None, "likeness_only": True}
    return {
        "table": "map",
        "title": "Some MAP",
        "dataset": "shop",
        "backbone": "resnet18",
        "split": "test",
        "mode": "type",
        "protocol": "leave-one-out",
        "definition": "AP = what it is.",
        "reference": "full",
        "chance": {"colour": 10.0, "shape": 30.0, "all": 25.0},
        "counts": dict.fromkeys(("colour", "shape", "all"), counted),
        "images": 1100,
        "hashes": dict.fromkeys(
            ("data", "weights", "training_code", "evaluation_code"), "0123" * 16
        ),
        "configs": dict.fromkeys(("floor", "rival", "full"), CONFIG),
        "rows": [
            entry("floor", 0, 20, 40, **floor),
            entry("rival", 0, 30, 50, likeness_only=True),
            entry("full", 0, 60, 80),
            entry("full", 1, 62, 84),
        ],
    }


def cells(text: str, first: str, after: str = "") -> list[str]:
    """Cells of the first table row that begins with `first`, after the heading `after`."""
    part = text[text.index(after) :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_main_table(result: Data) -> None:
    other = {**COMBINED, "same": {**COMBINED["same"], "precision_at_10": 0.74}}
    result["rows"][-1]["combinations"] = other
    text = markdown(result)
    assert text.startswith("# Some MAP: shop, resnet18\n")
    # Nobody measured likeness or changes, so they have no columns.
    assert cells(text, "model") == [
        "model", "seeds", "colour", "shape", "All", "same P@10", "but P@10", "but keep@10",
        "training",
    ]  # fmt: skip
    # 60 and 62, 80 and 84; All 75 and 78.5.
    sd = statistics.stdev([75, 78.5])
    assert cells(text, "FULL") == [
        "FULL", "2", "61.00", "82.00", f"76.75 ± {sd:.2f}", "0.720 ± 0.028", "0.500 ± 0.000",
        "0.600 ± 0.000", "100",
    ]  # fmt: skip
    assert cells(text, "RIVAL")[1:5] == ["1", "30.00", "50.00", "45.00"]
    assert cells(text, "FLOOR")[1:5] == ["", "20.00", "40.00", "35.00"]
    assert cells(text, "FLOOR")[-1] == ""
    assert cells(text, "best reachable")[1:] == ["", "", "", "", "0.900", "0.800", "", ""]
    assert cells(text, "chance")[1:] == [
        "", "10.00", "30.00", "25.00", "0.100", "0.050", "0.300", "",
    ]  # fmt: skip
    assert "ranked by likeness alone for: FLOOR; RIVAL." in text
    some = {**result, "rows": result["rows"][2:]}
    assert "likeness alone" not in markdown(some)


def test_the_differences_are_taken_seed_by_seed(result: Data) -> None:
    text = markdown(result)
    heading = "## FULL minus each other row"
    # The rival has seed 0 alone; the floor is the same for both seeds.
    assert cells(text, "RIVAL", heading)[:4] == ["RIVAL", "+30.00", "+30.00", "+30.00"]
    spread = [f"{statistics.stdev(pair):.2f}" for pair in ((40, 42), (40, 44), (40, 43.5))]
    assert cells(text, "FLOOR", heading)[:4] == [
        "FLOOR", f"+41.00 ± {spread[0]}", f"+42.00 ± {spread[1]}", f"+41.75 ± {spread[2]}",
    ]  # fmt: skip
    assert "| FULL |" not in text[text.index(heading) :]
    assert "training" not in cells(text, "", heading)
    below = {**result, "rows": [entry("full", 0, 10, 10), entry("rival", 0, 15, 10)]}
    assert cells(markdown(below), "RIVAL", heading)[1:4] == ["-5.00", "+0.00", "-1.25"]
    alone = {**result, "rows": [entry("full", 0, 10, 10)]}
    assert heading not in markdown(alone)


def test_it_says_how_it_was_measured(result: Data) -> None:
    text = markdown(result)
    for words in (
        "AP = what it is.",
        "split test (1,100 images), mode type",
        "leave-one-out; 1,000 queries, 0 without a relevant candidate",
        "pictures of 64 pixels a side",
        "epochs: 3; training seeds: 0, 1",
        "trained on x86_64, 2 cores, no GPU",
        "commit abc1234\n",
        "data 0123012301230123, ",
    ):
        assert words in text


def test_published_figures_stand_apart(result: Data) -> None:
    assert "ublished" not in markdown(result)
    lists = {**result["counts"], "all": {**result["counts"]["all"], "queries": 4293}}
    official = {**result, "dataset": "darn", "protocol": "published lists", "counts": lists}
    text = markdown(official)
    assert "54.29" not in text[: text.index("## Published MAP")]
    assert cells(text, "ASEN", "## Published MAP")[-1] == "53.31"
    assert "not reproduced here" in text
    # A stand-in with DARN's name and other lists is not compared.
    assert "ublished MAP" not in markdown({**official, "counts": result["counts"]})


def test_table_3_is_that_of_the_paper(result: Data) -> None:
    text = table_3(result)
    own, published = text.split("## Published: darn")
    assert cells(own, "model") == ["model", "seeds", "colour", "shape", "All"]
    assert cells(own, "FULL") == ["FULL", "2", "61.00 ± 1.41", "82.00 ± 2.83", "76.75 ± 2.47"]
    assert cells(own, "chance")[1:] == ["", "10.00", "30.00", "25.00"]
    assert cells(published, "M2Fashion")[-1] == "54.29"
    assert "of other pictures than above" in published
    lists = {**result["counts"], "all": {**result["counts"]["all"], "queries": 4293}}
    official = {**result, "dataset": "DARN", "protocol": "published lists", "counts": lists}
    assert "of the same lists as above" in table_3(official)


def test_what_a_dataset_cannot_tell_has_no_column(result: Data) -> None:
    def alike(mrr: float, hard: float | None) -> Data:
        return {name: {"mrr": mrr, "hard_mrr": hard} for name in ("query", "floor")}

    figures = [alike(0.4, None), alike(0.5, 0.4), alike(0.7, 0.6)]
    rows = [{**row, "likeness": f} for row, f in zip(result["rows"][1:], figures, strict=True)]
    text = markdown({**result, "rows": rows})
    assert cells(text, "model")[4:7] == ["All", "MRR", "hard MRR"]
    assert cells(text, "FULL")[5:7] == ["0.600 ± 0.141", "0.500 ± 0.141"]
    assert cells(text, "RIVAL")[5:7] == ["0.400", ""]
    # Seed by seed: both have seed 0.
    worth = cells(text, "RIVAL", "## FULL minus")
    assert worth[3:] == ["+30.00", "+0.100", "", *["+0.000"] * 3]
    changed = {"top30": 90.0, "ndcg": 60.0}
    rows = [{**row, "manipulation": changed, "likeness": None} for row in rows]
    text = markdown({**result, "rows": rows})
    assert cells(text, "model")[4:7] == ["All", "Top-30", "NDCG@30"]
    assert cells(text, "RIVAL")[5:7] == ["90.0", "60.0"]
    rows = [{**row, "combinations": None} for row in rows]
    text = markdown({**result, "rows": rows})
    assert "P@10" not in cells(text, "model")
    assert "best reachable" not in text


def test_any_rows_can_be_a_table() -> None:
    rows = [{"model": "a", "title": "named | so", "seed": 0, "x": {"y": [1.0, None]}}]
    columns = [Column("first", ("x", "y", 0), ".1f"), Column("last", ("x", "y", 1))]
    columns += [Column("none", ("x", "z", "w"))]
    text = means(rows, columns, "", "A note.")
    assert text.splitlines()[2:] == [r"| named \| so | 1 | 1.0 |  |  |", "", "A note."]
    assert differences(rows, columns, "a") == differences(rows, columns, "b") == ""
