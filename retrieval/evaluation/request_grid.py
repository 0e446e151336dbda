"""The tables of likeness, manipulation, exclusion and ties as cells of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from retrieval.evaluation.exclusion import ExclusionReport
from retrieval.evaluation.likeness import LikenessReport
from retrieval.evaluation.manipulation import ManipulationReport


@dataclass(frozen=True)
class Grid:
    """A table of cells; the first column is text, the others are figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""

    @property
    def figures(self) -> int:
        """Number of columns of figures."""
        return len(self.header) - 1


def likeness_grid(report: LikenessReport) -> Grid:
    """Same-item likeness, a row a kind."""
    kinds = (
        ("query without names", report.query),
        ("kept when one is named", report.kept),
        ("floor", report.floor),
    )
    rows = [
        [name, *(f"{v:.3f}" for v in (s.mrr, s.hard_mrr, s.r1, s.r10)), f"{s.queries:,}"]
        for name, s in kinds
    ]
    return Grid(
        "Likeness: other pictures of the same item",
        ["likeness", "MRR", "hard MRR", "R@1", "R@10", "queries"],
        rows,
        "Of the first other picture of the item among the whole split, by images with one to four. "
        "hard: the half of the queries whose nearest picture of the item is least alike by the "
        "floor. kept: mean over the query's known attributes, one named at a time. floor: "
        "average-pooled features of this checkpoint's backbone." + _drawn(report.available, report),
    )


def manipulation_grid(report: ManipulationReport) -> Grid:
    """The default point and, where the ranking has a dial, its curve."""
    flat = all(replace(point, keep=None) == report.default for point in report.curve)
    points = [("default", report.default)]
    points += [] if flat else [(f"keep {point.keep:.1f}", point) for point in report.curve]
    rows = [
        [
            name,
            *(f"{v:.1f}" for v in (p.top30, p.ndcg, p.ndcg_target, p.ndcg_others)),
            f"{p.changed_p10:.3f}",
            f"{p.keep10:.3f}",
        ]
        for name, p in points
    ]
    attributes = ", ".join(report.attributes)
    return Grid(
        "Manipulation: one other value (published protocol)",
        ["dial", "Top-30", "NDCG@30", "target", "others", "changed P@10", "keep@10"],
        rows,
        f"Compared: {attributes}; {report.images:,} images, {report.queries:,} of "
        f"{report.available:,} queries, seed {report.seed}; the query is in the gallery, but for "
        "the two at 10. Top-30 and NDCG in percent; target and others: NDCG of the changed "
        f"attribute and of the others. Ranked {report.ranked_by}."
        + (" This ranking has no dial." if flat and report.curve else ""),
    )


def exclusion_grid(report: ExclusionReport) -> Grid:
    """Requests without a value, and with another one instead."""
    kinds = [("without", report.without)]
    kinds += [] if report.but_without is None else [("but and without", report.but_without)]
    rows = [
        [
            name,
            f"{s.violation10:.3f}",
            f"{s.violation_chance:.3f}",
            "" if s.keep10 is None else f"{s.keep10:.3f}",
            "" if s.precision10 is None else f"{s.precision10:.3f}",
            f"{s.queries:,}",
        ]
        for name, s in kinds
    ]
    return Grid(
        "Without a value that the query has",
        ["requests", "violation@10", "chance", "keep@10", "precision@10", "queries"],
        rows,
        "violation@10: share of the hits known to have the unwanted value. keep@10: share of the "
        "hits' known, unnamed attributes with the query's value. but and without: a value of "
        "another attribute is wanted too; precision@10: the hit has it and is known to lack the "
        f"unwanted one. Seed {report.seed}. Ranked {report.ranked_by}.",
    )


def ties_grid(ties: dict[str, float]) -> Grid:
    """Near ties by attribute."""
    return Grid(
        "Near ties with the tenth hit",
        ["attribute", "per 1,000 images"],
        [[name, f"{count:.1f}"] for name, count in ties.items()],
        "Median number of images within 0.01 of the tenth hit's similarity (scaled to 0..1) under "
        "the attribute's type condition.",
    )


def _drawn(available: int, report: LikenessReport) -> str:
    if available <= report.query.queries:
        return ""
    return f" Drawn of {available:,} with seed {report.seed}."
