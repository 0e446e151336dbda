"""An evaluation as JSON with stable keys, as Markdown, and as tables for the terminal.

Units everywhere: MAP, chance and their intervals, Top-30 and NDCG in percent; MRR, recall,
precision@10, keep@10 and violation@10 in [0, 1]; ties per 1,000 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from retrieval.console import plain
from retrieval.evaluation.attribute_map import MapReport, MapScore
from retrieval.evaluation.combination_score import CombinationReport
from retrieval.evaluation.evaluation import Evaluation
from retrieval.evaluation.exclusion import ExclusionReport, ExclusionScore
from retrieval.evaluation.likeness import LikenessReport, LikenessScore
from retrieval.evaluation.manipulation import ManipulationReport, ManipulationScore
from retrieval.evaluation.report_grid import grids, published_beside
from retrieval.metrics import Interval


def definition(report: MapReport) -> str:
    """What the figures of a report mean, in one paragraph; no MAP is comparable without it."""
    lists = (
        "leave-one-out (every labelled image and each of its values queries all other images of "
        "the split that are labelled in the attribute)"
        if report.leave_one_out
        else "the published query and candidate lists"
    )
    condition = (
        "type: the condition marks all values of the attribute"
        if report.mode == "type"
        else "value: the condition names the query's value, so it tells what is asked; "
        "not comparable with type conditions"
    )
    return (
        "AP = mean over all relevant candidates of precision at their rank, full ranking by "
        "(-cosine similarity, id); relevant = has the query's value; a query with no relevant "
        "candidate scores 0 and stays in; all = mean over all queries. "
        f"Queries: {lists}. Condition mode {condition}. "
        "Chance = exact expected AP of a random ranking; lift = MAP / chance; "
        "CI = 95 % bootstrap over query images."
    )


def to_json(found: Evaluation) -> dict[str, Any]:
    """The evaluation as a JSON-ready dict.

    Args:
        found: what was measured.

    Returns:
        Keys dataset, split, mode, seed, all, attributes, combinations, floor, likeness,
        manipulation, without, ties (from combinations on None if not measured), and definition,
        protocol, attribute_mean, unlabelled, published (None where nothing published is
        comparable).
    """
    report, combinations, floor = found.map, found.combinations, found.floor
    published = published_beside(report)
    return {
        "dataset": report.dataset,
        "split": report.split,
        "mode": report.mode,
        "seed": report.seed,
        "definition": definition(report),
        "protocol": "leave-one-out" if report.leave_one_out else "published lists",
        "all": _score_json(report.all),
        "attribute_mean": _rounded(report.attribute_mean),
        "attributes": {s.name: _score_json(s) for s in report.attributes},
        "unlabelled": list(report.unlabelled),
        "combinations": None if combinations is None else _combinations_json(combinations),
        "floor": None
        if floor is None
        else {
            "all": _score_json(floor.all),
            "attribute_mean": _rounded(floor.attribute_mean),
            "attributes": {s.name: _score_json(s) for s in floor.attributes},
        },
        "likeness": None if found.likeness is None else _likeness_json(found.likeness),
        "manipulation": None
        if found.manipulation is None
        else _manipulation_json(found.manipulation),
        "without": None if found.without is None else _exclusion_json(found.without),
        "ties": None if found.ties is None else {n: _rounded(v) for n, v in found.ties.items()},
        "published": None
        if published is None
        else {
            "reproduced": False,
            "columns": list(published.columns),
            "rows": {method: list(row) for method, row in published.rows.items()},
            "remark": published.remark,
        },
    }


def to_markdown(found: Evaluation) -> str:
    """The evaluation as a Markdown document."""
    report = found.map
    parts = [f"# Evaluation of {report.dataset}, split {report.split}, {report.mode} mode", ""]
    parts += [definition(report), "", f"Seed {report.seed}."]
    if report.unlabelled:
        parts += ["", f"Not labelled in this split: {', '.join(report.unlabelled)}."]
    for grid in grids(found):
        parts += ["", f"## {grid.title}", ""]
        parts += [_markdown_row(grid.header), _markdown_row(["---"] + ["---:"] * grid.figures)]
        parts += [_markdown_row(row) for row in grid.rows]
        if grid.remark:
            parts += ["", grid.remark]
    return "\n".join(parts) + "\n"


def to_tables(found: Evaluation) -> list[Table]:
    """The evaluation as tables for a terminal of 80 columns.

    Columns that a person can do without are left to the Markdown and the JSON.
    """
    tables = []
    for grid in grids(found):
        # Escaped: a name of the dataset's may look like rich's markup.
        table = Table(
            title=plain(grid.title),
            caption=grid.remark or None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
        )
        shown = [i for i, name in enumerate(grid.header) if name not in _ON_DISK_ONLY]
        for i in shown:
            column = plain(grid.header[i])
            table.add_column(column, justify="right" if i else "left", no_wrap=i > 0)
        for row in grid.rows:
            table.add_row(*(plain(row[i]) for i in shown))
        tables.append(table)
    return tables


_ON_DISK_ONLY = ("candidates", "without relevant")


def _score_json(score: MapScore) -> dict[str, Any]:
    data: dict[str, Any] = {
        "map": _rounded(score.map),
        "chance": _rounded(score.chance),
        "lift": _rounded(score.lift),
        "ci": _interval_json(score.ci),
        "queries": score.queries,
        "queries_available": score.queries_available,
        "candidates": score.candidates,
        "queries_without_relevant": score.queries_without_relevant,
    }
    if score.map_any is not None and score.chance_any is not None:
        data |= {"map_any": _rounded(score.map_any), "chance_any": _rounded(score.chance_any)}
    return data


def _combinations_json(report: CombinationReport) -> dict[str, Any]:
    same, but = report.same, report.but
    return {
        "same": {
            "map": _rounded(same.map),
            "chance": _rounded(same.chance),
            "ci": _interval_json(same.ci),
            "precision_at_10": _rounded(same.precision_at_10),
            "precision_ci": _interval_json(same.precision_ci),
            "precision_ceiling": _rounded(same.precision_ceiling),
            "precision_chance": _rounded(same.precision_chance),
            "queries": same.queries,
        },
        "but": {
            "precision_at_10": _rounded(but.precision_at_10),
            "precision_ci": _interval_json(but.precision_ci),
            "precision_ceiling": _rounded(but.precision_ceiling),
            "precision_chance": _rounded(but.precision_chance),
            "keep_at_10": None if but.keep_at_10 is None else _rounded(but.keep_at_10),
            "keep_chance": None if but.keep_chance is None else _rounded(but.keep_chance),
            "queries": but.queries,
        },
        "combinations": report.combinations,
        "queries_per_combination": report.queries_per_combination,
        "seed": report.seed,
        "ranked_by": report.ranked_by,
    }


def _likeness_json(report: LikenessReport) -> dict[str, Any]:
    kinds = {"query": report.query, "kept": report.kept, "floor": report.floor}
    return {name: _figures_json(score) for name, score in kinds.items()}


def _manipulation_json(report: ManipulationReport) -> dict[str, Any]:
    default = _figures_json(report.default)
    default.pop("keep")
    return default | {
        "queries": report.queries,
        "queries_available": report.available,
        "images": report.images,
        "attributes": list(report.attributes),
        "seed": report.seed,
        "ranked_by": report.ranked_by,
        "curve": [_figures_json(point) for point in report.curve],
    }


def _exclusion_json(report: ExclusionReport) -> dict[str, Any]:
    both = report.but_without
    return _figures_json(report.without) | {
        "but_without": None if both is None else _figures_json(both),
        "seed": report.seed,
        "ranked_by": report.ranked_by,
    }


def _figures_json(
    score: LikenessScore | ManipulationScore | ExclusionScore,
) -> dict[str, Any]:
    """The fields by name, numbers rounded."""
    return {n: _rounded(v) if isinstance(v, float) else v for n, v in asdict(score).items()}


def _interval_json(interval: Interval) -> list[float]:
    return [_rounded(interval.low), _rounded(interval.high)]


def _rounded(value: float) -> float:
    """Four decimals: far below any interval's width, and readable in a diff."""
    return round(value, 4)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
