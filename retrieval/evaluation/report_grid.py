"""The tables of an evaluation as cells of text, for Markdown and for the terminal alike."""

from __future__ import annotations

from retrieval.evaluation.attribute_map import MapReport
from retrieval.evaluation.combination_score import CombinationReport
from retrieval.evaluation.evaluation import Evaluation
from retrieval.evaluation.published import PublishedTable, published_for
from retrieval.evaluation.request_grid import (
    Grid,
    exclusion_grid,
    likeness_grid,
    manipulation_grid,
    ties_grid,
)
from retrieval.metrics import Interval


def grids(found: Evaluation) -> list[Grid]:
    """MAP, then what else was measured, then published figures where they are comparable."""
    out = [_map_grid(found.map, found.floor)]
    if found.combinations is not None:
        out.append(_combination_grid(found.combinations))
    if found.likeness is not None:
        out.append(likeness_grid(found.likeness))
    if found.manipulation is not None:
        out.append(manipulation_grid(found.manipulation))
    if found.without is not None:
        out.append(exclusion_grid(found.without))
    if found.ties is not None:
        out.append(ties_grid(found.ties))
    published = published_beside(found.map)
    if published is not None:
        out.append(_published_grid(published))
    return out


def _map_grid(report: MapReport, floor: MapReport | None) -> Grid:
    multi = any(s.map_any is not None for s in report.attributes)
    below = {} if floor is None else {s.name: s for s in (*floor.attributes, floor.all)}
    header = ["attribute", "MAP", "95 % CI", "chance", "lift"]
    header += ["floor", "gain"] if floor is not None else []
    header += ["MAP any", "chance any"] if multi else []
    header += ["queries", "candidates", "without relevant"]
    rows = []
    for score in (*report.attributes, report.all):
        row = [score.name, _percent(score.map), _range(score.ci), _percent(score.chance)]
        row.append(f"{score.lift:.2f}x")
        if floor is not None:
            under = below.get(score.name)
            row.append("" if under is None else _percent(under.map))
            row.append("" if under is None else f"{score.map - under.map:+.2f}")
        if multi:
            row += ["" if v is None else _percent(v) for v in (score.map_any, score.chance_any)]
        capped = score.queries < score.queries_available
        row.append(f"{score.queries:,}" + (f" of {score.queries_available:,}" if capped else ""))
        row += [f"{score.candidates:,}", f"{score.queries_without_relevant:,}"]
        rows.append(row)
    mean = ["mean", _percent(report.attribute_mean)]
    if floor is not None:
        mean += ["", "", "", _percent(floor.attribute_mean)]
        mean.append(f"{report.attribute_mean - floor.attribute_mean:+.2f}")
    rows.append(mean + [""] * (len(header) - len(mean)))
    mode = f"{report.mode} condition, split {report.split} of {report.dataset}"
    unanswerable = report.all.queries_without_relevant
    remark = "all: mean over the queries; mean: plain mean over the attributes."
    if floor is not None:
        remark += " floor: average-pooled features of this checkpoint's backbone."
    if unanswerable:
        remark += f" Queries with no relevant candidate, scored 0: {unanswerable:,}."
    return Grid(f"Attribute-specific MAP, percent ({mode})", header, rows, remark)


def _combination_grid(report: CombinationReport) -> Grid:
    same, but = report.same, report.but
    header = ["combinations", "figure", "95 % CI", "chance", "best reachable", "queries"]
    rows = [_figure("same: MAP, percent", same.map, same.ci, same.chance, None, same.queries, 2)]
    for name, score in (("same", same), ("but", but)):
        rows.append(
            _figure(
                f"{name}: all-values precision@10",
                score.precision_at_10,
                score.precision_ci,
                score.precision_chance,
                score.precision_ceiling,
                score.queries,
                3,
            )
        )
    if but.keep_at_10 is not None and but.keep_chance is not None:
        rows.append(["but: keep@10", f"{but.keep_at_10:.3f}", "", f"{but.keep_chance:.3f}", "", ""])
    return Grid(
        f"{report.combinations} combinations of values",
        header,
        rows,
        "Relevant = has all the values. same: the query image has them; but: it lacks at least "
        "one. keep@10: share of the hits' known, unnamed attributes with the query's value. "
        f"Up to {report.queries_per_combination} queries a combination, seed {report.seed}; "
        f"CI over combinations. Ranked {report.ranked_by}.",
    )


def _figure(
    name: str,
    value: float,
    interval: Interval,
    chance: float,
    ceiling: float | None,
    queries: int,
    digits: int,
) -> list[str]:
    best = "" if ceiling is None else f"{ceiling:.{digits}f}"
    figures = [f"{value:.{digits}f}", _range(interval, digits), f"{chance:.{digits}f}"]
    return [name, *figures, best, f"{queries:,}"]


def _published_grid(table: PublishedTable) -> Grid:
    rows = [[method, *(_percent(v) for v in row)] for method, row in table.rows.items()]
    remark = "As printed in the papers, not reproduced here. " + table.remark
    return Grid("Published MAP, percent", ["published", *table.columns], rows, remark.strip())


def published_beside(report: MapReport) -> PublishedTable | None:
    """The published table that a report may be shown beside; None if nothing is comparable."""
    if report.leave_one_out:
        return None
    return published_for(report.dataset, report.split, report.mode, report.all.queries_available)


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _range(interval: Interval, digits: int = 1) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
