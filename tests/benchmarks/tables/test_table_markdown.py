"""A small table made by hand: means, spread, differences, order and published figures in cells."""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.tables.ablations_markdown import ablations_markdown
from benchmarks.tables.chart import draw_chart
from benchmarks.tables.combinations_markdown import combinations_markdown
from benchmarks.tables.map_markdown import map_markdown, order_lines
from benchmarks.tables.result import RowResult, TableResult
from training.errors import DataError

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


def entry(model: str, seed: int, colour: float, shape: float, **other: Any) -> RowResult:
    everything = (colour + 3 * shape) / 4  # three times as many queries
    row = RowResult(
        model=model,
        title=model.upper(),
        floor=False,
        seed=seed,
        all=everything,
        attributes={"colour": colour, "shape": shape},
        attribute_mean=(colour + shape) / 2,
        ci=[everything - 1, everything + 1],
        attributes_ci={"colour": [0.0, 1.0], "shape": [0.0, 1.0]},
        parameters=1234567,
        train_seconds=100.0 + seed,
        setup_seconds=30.0 - seed,
        epochs=3,
        best_epoch=2,
        validation_map=50.0,
        combinations=COMBINED,
        likeness_only=False,
        config="c",
        commit="abc1234",
        machine="x86_64, 2 cores, no GPU",
        train_machine="x86_64, 2 cores, no GPU",
    )
    return replace(row, **other)


@pytest.fixture
def result() -> TableResult:
    counted = {"queries": 1000, "candidates": 1000, "queries_without_relevant": 0}
    floor = entry("floor", 0, 20, 40, floor=True, train_seconds=None, setup_seconds=None)
    return TableResult(
        table="map",
        title="Some MAP",
        dataset="shop",
        backbone="resnet18",
        split="test",
        mode="type",
        protocol="leave-one-out",
        definition="AP = what it is.",
        reference="full",
        order=["floor", "rival", "full"],
        chance={"colour": 10.0, "shape": 30.0, "all": 25.0},
        counts=dict.fromkeys(("colour", "shape", "all"), counted),
        images=1100,
        hashes=dict.fromkeys(("data", "weights", "training_code", "evaluation_code"), "0123" * 16),
        configs=dict.fromkeys(("floor", "rival", "full"), CONFIG),
        rows=[
            replace(floor, train_machine=None, likeness_only=True),
            entry("rival", 0, 30, 50, likeness_only=True),
            entry("full", 0, 60, 80),
            entry("full", 1, 62, 84),
        ],
    )


def cells(text: str, first: str, after: str = "") -> list[str]:
    """Cells of the first table row that begins with `first`, after the heading `after`."""
    part = text[text.index(after) :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_main_table(result: TableResult) -> None:
    text = map_markdown(result)
    assert text.startswith("# Some MAP: shop, resnet18\n")
    assert cells(text, "model") == [
        "model", "colour", "shape", "All", "seeds", "95 % CI", "mean", "lift", "parameters",
        "training",
    ]  # fmt: skip
    # 60 and 62, 80 and 84; All 75 and 78.5.
    sd = statistics.stdev([75, 78.5])
    assert cells(text, "FULL") == [
        "FULL", "61.00", "82.00", f"76.75 ± {sd:.2f}", "2", "75.8 to 77.8", "71.50",
        f"{76.75 / 25:.2f}", "1,234,567", "100",
    ]  # fmt: skip
    assert cells(text, "RIVAL")[3:5] == ["45.00", "1"]
    assert cells(text, "FLOOR")[3:5] == ["35.00", ""]
    assert cells(text, "FLOOR")[-1] == ""
    assert cells(text, "chance") == [
        "chance", "10.00", "30.00", "25.00", "", "", "20.00", "1.00", "", "",
    ]  # fmt: skip


def test_the_differences_are_taken_seed_by_seed(result: TableResult) -> None:
    text = map_markdown(result)
    heading = "## FULL minus each other row"
    # The rival has seed 0 alone; the floor is the same for both seeds.
    assert cells(text, "RIVAL", heading) == ["RIVAL", "+30.00", "+30.00", "+30.00"]
    spread = [f"{statistics.stdev(pair):.2f}" for pair in ((40, 42), (40, 44), (40, 43.5))]
    assert cells(text, "FLOOR", heading) == [
        "FLOOR", f"+41.00 ± {spread[0]}", f"+42.00 ± {spread[1]}", f"+41.75 ± {spread[2]}",
    ]  # fmt: skip
    assert "| FULL |" not in text[text.index(heading) :]
    below = replace(result, rows=[entry("full", 0, 10, 10), entry("rival", 0, 15, 10)])
    assert cells(map_markdown(below), "RIVAL", heading)[1:] == ["-5.00", "+0.00", "-1.25"]
    alone = replace(result, rows=[entry("full", 0, 10, 10)])
    assert heading not in map_markdown(alone)


def test_the_order_is_checked_among_the_rows_that_are_there(result: TableResult) -> None:
    assert order_lines(result) == ["All rises as expected: FLOOR < RIVAL < FULL."]
    rows = [entry("floor", 0, 40, 40), entry("rival", 0, 38, 38), entry("full", 0, 39, 39)]
    assert order_lines(replace(result, rows=rows)) == [
        "Expected of All: FLOOR < RIVAL < FULL. It is not so here:",
        "",
        "- RIVAL is 2.00 points below FLOOR",
    ]
    assert order_lines(replace(result, rows=[rows[0], rows[2]]))[2:] == [
        "- FULL is 1.00 points below FLOOR"
    ]
    assert order_lines(replace(result, rows=rows[:1])) == []
    assert order_lines(replace(result, order=[])) == []


def test_it_says_how_it_was_measured(result: TableResult) -> None:
    text = map_markdown(result)
    for words in (
        "AP = what it is.",
        "split test (1,100 images), mode type",
        "training seeds: RIVAL 0; FULL 0, 1",
        "trained on x86_64, 2 cores, no GPU",
        "30 s for the run that brought the images up, 29 s for one",
        "commit abc1234\n",
        "data 0123012301230123, ",
    ):
        assert words in text
    assert cells(text, "colour", "## How") == ["colour", "1,000", "1,000", "0"]


def test_published_figures_stand_apart(result: TableResult) -> None:
    text = map_markdown(result)
    heading = "## Published MAP (All) of other datasets"
    assert "58.80" not in text[: text.index(heading)]
    assert cells(text, "RPF", heading) == ["RPF", "58.80", "10.22", "70.11"]
    assert "not reproduced here" in text
    lists = {**result.counts, "all": {**result.counts["all"], "queries": 4293}}
    official = replace(result, dataset="darn", protocol="published lists", counts=lists)
    text = map_markdown(official)
    assert heading not in text
    assert cells(text, "ASEN", "## Published MAP")[-1] == "53.31"
    # A stand-in with DARN's name and other lists is not compared.
    assert heading in map_markdown(replace(official, counts=result.counts))
    assert "ublished" not in map_markdown(replace(result, table="ablations"))


def test_what_each_part_is_worth(result: TableResult) -> None:
    def alike(mrr: float, hard: float | None) -> dict[str, Any]:
        return {name: {"mrr": mrr, "hard_mrr": hard} for name in ("query", "floor")}

    figures = [alike(0.4, None), alike(0.5, 0.4), alike(0.7, 0.6)]
    rows = [replace(row, likeness=f) for row, f in zip(result.rows[1:], figures, strict=True)]
    text = ablations_markdown(replace(result, table="ablations", rows=rows))
    # Nobody measured changes, so they have no columns.
    assert cells(text, "model") == [
        "model", "All MAP", "MRR", "hard MRR", "same P@10", "but P@10", "but keep@10", "seeds",
    ]  # fmt: skip
    assert cells(text, "FULL")[1:4] == ["76.75 ± 2.47", "0.600 ± 0.141", "0.500 ± 0.141"]
    assert cells(text, "RIVAL")[1:4] == ["45.00", "0.400", ""]
    # Seed by seed: both have seed 0.
    worth = cells(text, "RIVAL", "## What each part is worth: FULL minus")
    assert worth == ["RIVAL", "+30.00", "+0.100", "", *["+0.000"] * 3]
    assert cells(text, "RIVAL", "## MAP by attribute")[1:4] == ["30.00", "50.00", "45.00"]
    changed = {"top30": 90.0, "ndcg": 60.0}
    rows = [replace(row, manipulation=changed, likeness=None) for row in rows]
    text = ablations_markdown(replace(result, rows=rows))
    assert cells(text, "model")[1:4] == ["All MAP", "Top-30", "NDCG@30"]
    assert cells(text, "RIVAL")[2:4] == ["90.0", "60.0"]


def test_combinations(result: TableResult) -> None:
    other = {**COMBINED, "same": {**COMBINED["same"], "precision_at_10": 0.74}}
    result.rows[-1] = replace(result.rows[-1], combinations=other)
    text = combinations_markdown(result)
    assert cells(text, "model") == [
        "model", "same MAP, %", "same P@10", "but P@10", "but keep@10", "ranked by", "seeds",
    ]  # fmt: skip
    assert cells(text, "FULL") == [
        "FULL", "40.00 ± 0.00", "0.720 ± 0.028", "0.500 ± 0.000", "0.600 ± 0.000",
        "likeness, presence", "2",
    ]  # fmt: skip
    assert cells(text, "RIVAL")[1:] == ["40.00", "0.700", "0.500", "0.600", "likeness", "1"]
    assert cells(text, "best reachable") == ["best reachable", "", "0.900", "0.800", "", "", ""]
    assert cells(text, "chance")[1:5] == ["10.00", "0.100", "0.050", "0.300"]
    assert "Ranked by likeness alone" in text
    assert "50 combinations of two and three values" in text
    some = replace(result, rows=result.rows[2:])
    assert "Ranked by likeness alone" not in combinations_markdown(some)


def test_combinations_that_could_not_be_measured(result: TableResult) -> None:
    unknown = {**COMBINED, "but": {**COMBINED["but"], "keep_at_10": None, "keep_chance": None}}
    rows = [replace(row, combinations=unknown) for row in result.rows]
    text = combinations_markdown(replace(result, rows=rows))
    assert cells(text, "FULL")[4] == cells(text, "chance")[4] == ""
    none = replace(result, rows=[replace(row, combinations=None) for row in rows])
    assert "No combination has enough images" in combinations_markdown(none)


def test_json_and_back(result: TableResult) -> None:
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {"model", "seed", "all", "attributes", "parameters", "train_seconds"} <= set(
        data["rows"][0]
    )
    assert data["rows"][2]["attributes"] == {"colour": 60, "shape": 80}
    assert TableResult.from_json(data, "x.json") == result
    del data["rows"][0]["seed"]
    for broken in (data, {}, [], None):
        with pytest.raises(DataError, match=r"x\.json is not the result of a table"):
            TableResult.from_json(broken, "x.json")


def test_the_chart_has_a_panel_a_column(result: TableResult, tmp_path: Path) -> None:
    draw_chart(result, tmp_path / "one.png")
    more = {f"part {i}": 50.0 for i in range(5)}
    rows = [replace(row, attributes=more) for row in result.rows]
    chance = dict.fromkeys(more, 10.0) | {"all": 10.0}
    draw_chart(replace(result, rows=rows, chance=chance), tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.size[0] > 500
        assert abs(two.size[1] - 2 * one.size[1]) <= 2  # three panels a row
