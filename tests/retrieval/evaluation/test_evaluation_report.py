import json
from dataclasses import replace

from rich.console import Console

from retrieval.evaluation.attribute_map import MapReport, MapScore
from retrieval.evaluation.combinations import CombinationReport, CombinationScore
from retrieval.evaluation.exclusion import ExclusionReport, ExclusionScore
from retrieval.evaluation.likeness import LikenessReport, LikenessScore
from retrieval.evaluation.manipulation import ManipulationReport, ManipulationScore
from retrieval.evaluation.report import Evaluation, to_json, to_markdown, to_tables
from retrieval.evaluation.tagging import TagReport, TagScore, ValueScore
from retrieval.metrics import Interval


def score(value, queries=10, **rest):
    return MapScore(
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
        all=score(base + 1.23456, queries),
        attribute_mean=base + 2,
        attributes={
            "sleeve|length": score(base),
            "colour": score(base + 4, map_any=61.0, chance_any=30.0, queries_available=99),
        },
        unlabelled=("fabric",),
    )


COMBINATIONS = CombinationReport(
    same=CombinationScore(
        100, 0.75, Interval(0.7, 0.8), 0.9, 0.05, map=70.0, ci=Interval(60, 80), chance=5.0
    ),
    but=CombinationScore(90, 0.6, Interval(0.5, 0.7), 0.9, 0.05),
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
    assert data["attributes"]["sleeve|length"]["map_any"] is None
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
    capped = replace(report(), all=score(51.0, queries_available=99))
    assert "10 of 99 queries" in to_markdown(Evaluation(capped))
    assert "Not labelled in this split: fabric" in text
    assert "sleeve\\|length" in text


def test_terminal_tables_render():
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        for table in to_tables(Evaluation(report(), COMBINATIONS, report(base=30.0))):
            console.print(table)
    assert "51.23" in capture.get()
    assert "all-values precision@10" in capture.get()


def requests(turning=True):
    """All that is measured beside MAP and combinations; `turning`: the ranking has a dial."""
    alike = [LikenessScore(0.5 + n / 10, 0.4, 0.3, 0.7, 90) for n in range(3)]
    points = [ManipulationScore(k, 80.0 + turning * k, 60, 70, 50, 0.8, 0.6) for k in (0.0, 1.0)]
    default = ManipulationScore(None, 80.0, 60, 70, 50, 0.8, 0.6)
    return Evaluation(
        report(),
        likeness=LikenessReport(*alike, 4000, 3),
        manipulation=ManipulationReport(
            default, tuple(points), ("colour", "fit"), 50, 20, 99, 3, "by hand"
        ),
        without=ExclusionReport(
            ExclusionScore(0.02345, 0.3, None, None, 60),
            ExclusionScore(0.1, 0.2, 0.6, 0.5, 40),
            3,
            "by hand",
        ),
        ties={"sleeve|length": 12.345},
        tags=TagReport(
            0.81234,
            0.03456,
            {
                "fit": TagScore(
                    0.8,
                    Interval(0.7, 0.9),
                    0.5,
                    0.75,
                    0.0,
                    None,
                    0.04,
                    12,
                    {"slim": ValueScore(0.6, 4)},
                )
            },
        ),
    )


def test_requests_in_json_and_in_tables():
    data = to_json(requests())
    assert data["likeness"]["kept"] == {
        "mrr": 0.6, "hard_mrr": 0.4, "r1": 0.3, "r10": 0.7, "queries": 90,
    }  # fmt: skip
    assert data["manipulation"]["ndcg_target"] == 70
    assert "keep" not in data["manipulation"]
    assert [(p["keep"], p["top30"]) for p in data["manipulation"]["curve"]] == [(0, 80), (1, 81)]
    assert (data["without"]["violation10"], data["without"]["keep10"]) == (0.0234, None)
    assert data["without"]["but_without"]["precision10"] == 0.5
    assert data["ties"] == {"sleeve|length": 12.345}
    text = to_markdown(requests())
    assert "| kept when one is named | 0.600 | 0.400 | 0.300 | 0.700 | 90 |" in text
    assert "Drawn of 4,000 with seed 3." in text
    assert "| keep 1.0 | 81.0 | 60.0 | 70.0 | 50.0 | 0.800 | 0.600 |" in text
    assert "| without | 0.023 | 0.300 |  |  | 60 |" in text
    assert "| sleeve\\|length | 12.3 |" in text
    assert data["tags"]["accuracy"] == 0.8123
    assert data["tags"]["attributes"]["fit"]["values"] == {"slim": {"f1": 0.6, "images": 4}}
    assert "| fit | 0.800 | 0.70 to 0.90 | 0.500 | 0.750 | 0.000 |" in text
    still = to_markdown(requests(turning=False))
    assert "keep 1.0" not in still
    assert "This ranking has no dial." in still
    for table in to_tables(requests()):
        assert len({len(list(column.cells)) for column in table.columns}) == 1
