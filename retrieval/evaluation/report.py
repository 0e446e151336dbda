"""All that one run of `retrieve evaluate` measures, as JSON with stable keys, Markdown and tables.

Units everywhere: MAP, chance and their intervals, Top-30 and NDCG in percent; MRR, recall,
precision@10, keep@10, violation@10 and what is of tags in [0, 1]; ties per 1,000 images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from retrieval.evaluation import report_grid
from retrieval.evaluation.attribute_map import Embed, MapReport, Mode, evaluate_attributes
from retrieval.evaluation.combinations import (
    Combination,
    CombinationReport,
    evaluate_combinations,
)
from retrieval.evaluation.exclusion import ExclusionReport, evaluate_exclusion
from retrieval.evaluation.likeness import LikenessReport, evaluate_likeness, near_ties
from retrieval.evaluation.manipulation import DIAL, ManipulationReport, evaluate_manipulation
from retrieval.evaluation.published import PublishedTable, published_for
from retrieval.evaluation.report_grid import Grid
from retrieval.evaluation.scorer import Scorer
from retrieval.evaluation.tagging import AIM, TagReport
from training.datasets.dataset import Dataset


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one split; None where something was or could not be measured.

    `floor` is MAP of the average-pooled features of this checkpoint's backbone: untrained only if
    the backbone was kept frozen. `ties` are as `near_ties` counts them.
    """

    map: MapReport | None
    combinations: CombinationReport | None = None
    floor: MapReport | None = None
    likeness: LikenessReport | None = None
    manipulation: ManipulationReport | None = None
    without: ExclusionReport | None = None
    ties: dict[str, float] | None = None
    tags: TagReport | None = None

    @property
    def published(self) -> PublishedTable | None:
        """The published table that MAP may be shown beside; None if nothing is comparable."""
        own = self.map
        if own is None or own.leave_one_out:
            return None
        return published_for(own.dataset, own.split, own.mode, own.all.queries_available)


@dataclass(frozen=True)
class Ranking:
    """How a model ranks the rows of a split: requests by `scorer`, with the dial at the points of
    `dial` too, and types by embeddings as of `evaluate_attributes`, if it has any."""

    scorer: Scorer
    embed: Embed | None
    embed_queries: Embed | None = None
    dial: Sequence[float] = DIAL


@dataclass(frozen=True)
class Protocols:
    """What is measured beside MAP, fields of `Evaluation`, and how: combinations as drawn, queries
    at most for each of them and for MAP, the seed of draws and intervals."""

    beside: Collection[str] = ("likeness", "manipulation", "without", "ties")
    combinations: Sequence[Combination] = ()
    combination_queries: int = 20
    mode: Mode = "type"
    max_queries: int | None = None
    seed: int = 0


def evaluate_split(
    part: Dataset, split: str, ranking: Ranking, floor: Scorer, how: Protocols
) -> Evaluation:
    """Measure one model on a split, all but the MAP of a floor.

    Args:
        part: the split's images, the rows of all rankings.
        floor: settles which queries of likeness are hard.
    """
    scorer, embed, asking, seed = ranking.scorer, ranking.embed, ranking.embed_queries, how.seed
    report = combined = likeness = manipulation = without = ties = None
    if embed is not None:
        most = how.max_queries
        report = evaluate_attributes(part, split, how.mode, embed, seed, most, asking)
    if how.combinations:
        each = how.combination_queries
        combined = evaluate_combinations(part, split, scorer, how.combinations, each, seed)
    if "likeness" in how.beside:
        likeness = evaluate_likeness(part, scorer, floor, seed)
    if "manipulation" in how.beside:
        manipulation = evaluate_manipulation(part, scorer, seed, ranking.dial)
    if "without" in how.beside:
        without = evaluate_exclusion(part, scorer, seed)
    if "ties" in how.beside and embed is not None:
        ties = near_ties(part, embed, seed, asking)
    return Evaluation(report, combined, None, likeness, manipulation, without, ties)


def definition(report: MapReport) -> str:
    """What the figures of a report mean, in one paragraph; no MAP is comparable without it."""
    lists = "the published query and candidate lists"
    if report.leave_one_out:
        lists = "leave-one-out (every labelled image and each of its values queries all other "
        lists += "images of the split that are labelled in the attribute)"
    condition = "type: the condition marks all values of the attribute"
    if report.mode == "value":
        condition = "value: the condition names the query's value, so it tells what is asked; "
        condition += "not comparable with type conditions"
    return (
        "AP = mean over all relevant candidates of precision at their rank, full ranking by "
        "(-cosine similarity, id); relevant = has the query's value; a query with no relevant "
        "candidate scores 0 and stays in; all = mean over all queries. Queries: "
        f"{lists}. Condition mode {condition}. Chance = exact expected AP of a random ranking; "
        "lift = MAP / chance; CI = 95 % bootstrap over query images."
    )


def to_json(found: Evaluation) -> dict[str, Any]:
    """The evaluation as a JSON-ready dict: the keys of `MapReport`, then those of `Evaluation` but
    map, and definition, protocol and published; None where not measured or not comparable."""
    assert found.map is not None, "whatever is written has its MAP"
    data: dict[str, Any] = report_grid.to_json(found)
    report, beside = data.pop("map"), found.published
    if found.manipulation is not None:
        data["manipulation"].pop("keep")
    if found.floor is not None:
        data["floor"] = {n: data["floor"][n] for n in ("all", "attribute_mean", "attributes")}
    return {
        **report,
        "definition": definition(found.map),
        "protocol": "leave-one-out" if found.map.leave_one_out else "published lists",
        **data,
        "published": beside and {"reproduced": False, **report_grid.to_json(beside)},
    }


def to_markdown(found: Evaluation) -> str:
    """The evaluation as a Markdown document."""
    report = found.map
    assert report is not None, "whatever is written has its MAP"
    lines = [f"# Evaluation of {report.dataset}, split {report.split}, {report.mode} mode", ""]
    lines += [definition(report), "", f"Seed {report.seed}."]
    if report.unlabelled:
        lines += ["", f"Not labelled in this split: {', '.join(report.unlabelled)}."]
    for grid in _grids(found):
        lines += grid.markdown()
    return "\n".join(lines) + "\n"


def to_tables(found: Evaluation) -> list[Table]:
    """The evaluation as tables for a terminal of 80 columns."""
    return [grid.table() for grid in _grids(found)]


def _grids(found: Evaluation) -> Iterator[Grid]:
    """MAP, then what else was measured, then published figures where they are comparable."""
    if found.map is not None:
        yield _map_grid(found.map, found.floor)
    if found.combinations is not None:
        yield _combination_grid(found.combinations)
    if found.likeness is not None:
        yield _likeness_grid(found.likeness)
    if found.manipulation is not None:
        yield _manipulation_grid(found.manipulation)
    if found.without is not None:
        yield _exclusion_grid(found.without)
    if found.ties is not None:
        yield Grid(
            "Near ties with the tenth hit",
            ["attribute", "per 1,000 images"],
            [[name, f"{count:.1f}"] for name, count in found.ties.items()],
            "Median number of images within 0.01 of the tenth hit's similarity (scaled to 0..1) "
            "under the attribute's type condition.",
        )
    if found.tags is not None:
        yield _tag_grid(found.tags)
    if found.published is not None:
        remark = "As printed in the papers, not reproduced here. " + found.published.remark
        header = ["published", *found.published.columns]
        yield Grid("Published MAP, percent", header, found.published.cells(), remark.strip())


def _map_grid(report: MapReport, floor: MapReport | None) -> Grid:
    scores, total = {**report.attributes, "all": report.all}, report.all
    mode = f"{report.mode} condition, split {report.split} of {report.dataset}"
    remark = f"all: mean over the queries; {report.attribute_mean:.2f}: mean over the attributes"
    if floor is not None:
        remark += f", of the floor {floor.attribute_mean:.2f}; floor: average-pooled features of "
        remark += "this checkpoint's backbone"
    if total.queries < total.queries_available:
        remark += f"; {total.queries:,} of {total.queries_available:,} queries"
    if total.queries_without_relevant:
        remark += f"; {total.queries_without_relevant:,} queries, scored 0, have nothing relevant"
    title = f"Attribute-specific MAP, percent ({mode})"
    grid = Grid.of(title, "attribute", scores, remark + ".")
    if floor is None:
        return grid
    place = grid.header.index("lift") + 1
    below = {**floor.attributes, "all": floor.all}
    table = [[*grid.header[:place], "floor", "gain", *grid.header[place:]]]
    for row in grid.rows:
        under = below[row[0]].map
        gain = f"{scores[row[0]].map - under:+.2f}"
        table.append([*row[:place], f"{under:.2f}", gain, *row[place:]])
    return replace(grid, header=table[0], rows=table[1:])


def _combination_grid(report: CombinationReport) -> Grid:
    return Grid.of(
        f"{report.combinations} combinations of values",
        "combinations",
        {"same": report.same, "but": report.but},
        "Relevant = has all the values. same: the query image has them; but: it lacks at least "
        "one. keep@10: share of the hits' known, unnamed attributes with the query's value. "
        f"Up to {report.queries_per_combination} queries a combination, seed {report.seed}; "
        f"CI over combinations. Ranked {report.ranked_by}.",
    ).turned()


def _likeness_grid(report: LikenessReport) -> Grid:
    queries, available = report.query.queries, report.available
    return Grid.of(
        "Likeness: other pictures of the same item",
        "likeness",
        {
            "query without names": report.query,
            "kept when one is named": report.kept,
            "floor": report.floor,
        },
        "Of the first other picture of the item among the whole split, by images with one to four. "
        "hard: the half of the queries whose nearest picture of the item is least alike by the "
        "floor. kept: mean over the query's known attributes, one named at a time. floor: "
        "average-pooled features of this checkpoint's backbone."
        + (f" Drawn of {available:,} with seed {report.seed}." if available > queries else ""),
    )


def _manipulation_grid(report: ManipulationReport) -> Grid:
    """The default point and, where the ranking has a dial, its curve."""
    flat = all(replace(point, keep=None) == report.default for point in report.curve)
    curve = () if flat else report.curve
    return Grid.of(
        "Manipulation: one other value (published protocol)",
        "dial",
        {"default": report.default} | {f"keep {point.keep:.1f}": point for point in curve},
        f"Compared: {', '.join(report.attributes)}; {report.images:,} images, {report.queries:,} "
        f"of {report.queries_available:,} queries, seed {report.seed}; the query is in the "
        "gallery, but for the two at 10. Top-30 and NDCG in percent; target and others: NDCG of "
        f"the changed attribute and of the others. Ranked {report.ranked_by}."
        + (" This ranking has no dial." if flat and report.curve else ""),
    )


def _exclusion_grid(report: ExclusionReport) -> Grid:
    kinds = {"without": report.without}
    if report.but_without is not None:
        kinds["but and without"] = report.but_without
    return Grid.of(
        "Without a value that the query has",
        "requests",
        kinds,
        "violation@10: share of the hits known to have the unwanted value. keep@10: share of the "
        "hits' known, unnamed attributes with the query's value. but and without: a value of "
        "another attribute is wanted too; precision@10: the hit has it and is known to lack the "
        f"unwanted one. Seed {report.seed}. Ranked {report.ranked_by}.",
    )


def _tag_grid(report: TagReport) -> Grid:
    return Grid.of(
        "Predicted labels, as `retrieve tag` fills them in",
        "attribute",
        report.attributes,
        f"Mean accuracy over the attributes: {report.accuracy:.3f}; of several values all have to "
        "be right. most frequent: accuracy of always saying that. F1: mean over values. coverage: "
        f"share that can be filled in, the surest first, with {AIM:.0%} of them right, and the "
        "--confidence that it takes, as read off this split. ECE: expected calibration error, how "
        f"far chances are from what is right, {report.calibration_error:.3f} in the mean.",
    )
