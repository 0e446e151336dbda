import json

from rich.console import Console

from retrieval.evaluation import Evaluation, to_json, to_markdown, to_tables
from retrieval.evaluation.attribute_map import MapReport, MapScore
from retrieval.evaluation.combination_score import ButScore, CombinationReport, SameScore
from retrieval.metrics import Interval


def score(name, value, queries=10, **rest):
    return MapScore(
        name=name,
        map=value,
        chance=20.0,
        lift=value / 20.0,
        ci=Interval(value - 1, value + 1),
        queries=queries,
        queries_available=rest.pop("queries_available", queries),
        candidates=40,
        queries_without_relevant=2,
        **rest,
    )


def report(dataset="toy", base=50.0, queries=20, leave_one_out=True, mode="type"):
    return MapReport(
        dataset=dataset,
        split="test",
        mode=mode,
        seed=3,
        leave_one_out=leave_one_out,
        all=score("all", base + 1.23456, queries),
        attribute_mean=base + 2,
        attributes=(
            score("sleeve|length", base),
            score("colour", base + 4, map_any=61.0, chance_any=30.0, queries_available=99),
        ),
        unlabelled=("fabric",),
    )


COMBINATIONS = CombinationReport(
    same=SameScore(70.0, 5.0, Interval(60, 80), 0.75, Interval(0.7, 0.8), 0.9, 0.05, 100),
    but=ButScore(0.6, Interval(0.5, 0.7), 0.9, 0.05, None, None, 90),
    combinations=12,
    queries_per_combination=10,
    seed=3,
    ranked_by="as queries are",
)


def test_json_has_the_promised_keys():
    data = json.loads(json.dumps(to_json(Evaluation(report(), COMBINATIONS, report(base=30.0)))))
    assert (data["dataset"], data["split"], data["mode"], data["seed"]) == (
        "toy",
        "test",
        "type",
        3,
    )
    assert data["all"]["map"] == 51.2346
    assert data["all"]["ci"] == [50.2346, 52.2346]
    for part in (data["all"], *data["attributes"].values(), data["floor"]["all"]):
        assert {"map", "chance", "queries", "lift", "candidates"} <= set(part)
    assert list(data["attributes"]) == ["sleeve|length", "colour"]
    assert "map_any" not in data["attributes"]["sleeve|length"]
    assert data["attributes"]["colour"]["map_any"] == 61.0
    assert data["combinations"]["same"]["map"] == 70.0
    assert data["combinations"]["same"]["precision_at_10"] == 0.75
    assert data["combinations"]["but"]["keep_at_10"] is None
    assert data["floor"]["attributes"]["colour"]["map"] == 34.0
    assert data["published"] is None


def test_what_was_not_measured_is_null():
    data = to_json(Evaluation(report()))
    assert data["combinations"] is None
    assert data["floor"] is None


def test_published_figures_stand_apart_and_only_beside_the_official_lists():
    official = report("darn", queries=4293, leave_one_out=False)
    assert to_json(Evaluation(official))["published"]["reproduced"] is False
    text = to_markdown(Evaluation(official))
    heading = text.index("## Published MAP, percent")
    assert text.index("53.31") > heading
    assert "not reproduced here" in text[heading:]
    for other in (
        report("darn", queries=4293),
        report("darn", queries=4293, leave_one_out=False, mode="value"),
        report("darn", queries=400, leave_one_out=False),
    ):
        assert "Published" not in to_markdown(Evaluation(other))


def test_markdown_tables_are_rectangular_and_say_what_was_measured():
    text = to_markdown(Evaluation(report(), COMBINATIONS, report(base=30.0)))
    widths = {}
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line.startswith("|")]
        for line in lines:
            widths.setdefault(lines[0], set()).add(line.replace("\\|", "").count("|"))
    assert len(widths) == 2
    assert all(len(w) == 1 for w in widths.values())
    assert "leave-one-out" in text
    assert "| all | 51.23 | 50.2 to 52.2 | 20.00 | 2.56x | 31.23 | +20.00 |" in text
    assert "floor: average-pooled features of this checkpoint's backbone" in text
    assert "floor:" not in to_markdown(Evaluation(report(), COMBINATIONS))
    assert "10 of 99" in text
    assert "Not labelled in this split: fabric" in text
    assert "sleeve\\|length" in text


def test_terminal_tables_render():
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        for table in to_tables(Evaluation(report(), COMBINATIONS, report(base=30.0))):
            console.print(table)
    assert "51.23" in capture.get()
    assert "all-values precision@10" in capture.get()
