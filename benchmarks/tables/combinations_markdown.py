"""Searching by several values at once as Markdown: `same` and `but`, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tables.conditions_markdown import conditions_of
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.result import RowResult, TableResult
from benchmarks.tables.summary import by_model, figure


@dataclass(frozen=True)
class Column:
    """A column, and where its figure, its chance and its best reachable value stand.

    Args:
        heading: of the column.
        kind: `same` or `but`.
        figure, chance, ceiling: names in what `retrieve evaluate --json` prints; None: it has none.
        form: how the figure is written.
    """

    heading: str
    kind: str
    figure: str
    chance: str
    ceiling: str | None
    form: str


COLUMNS = (
    Column("same MAP, %", "same", "map", "chance", None, ".2f"),
    Column("same P@10", "same", "precision_at_10", "precision_chance", "precision_ceiling", ".3f"),
    Column("but P@10", "but", "precision_at_10", "precision_chance", "precision_ceiling", ".3f"),
    Column("but keep@10", "but", "keep_at_10", "keep_chance", None, ".3f"),
)


def combinations_markdown(result: TableResult) -> str:
    """The whole document.

    Args:
        result: entries of which at least one has combinations; others are left out.
    """
    rows = [row for row in result.rows if row.combinations is not None]
    lines = [f"# Combinations of values: {result.dataset}, {result.backbone}", ""]
    if not rows:
        return "\n".join([*lines, "No combination has enough images in this split.", ""])
    first = rows[0].combinations or {}
    header = ["model", *(column.heading for column in COLUMNS), "ranked by", "seeds"]
    cells = [_model(entries) for entries in by_model(rows).values()]
    cells += [
        _shared("best reachable", first, [column.ceiling for column in COLUMNS]),
        _shared("chance", first, [column.chance for column in COLUMNS]),
    ]
    lines += [*markdown_grid(header, cells), ""]
    lines += [
        f"{first['combinations']} combinations of two and three values, up to "
        f"{first['queries_per_combination']} queries of each kind, drawn with seed "
        f"{first['seed']}: {first['same']['queries']:,} `same` and {first['but']['queries']:,} "
        "`but` queries. Relevant = has all the values; same: the query image has them; but: it "
        "lacks at least one. P@10: share of the first ten hits that have them all; keep@10: over "
        "the attributes that were not named and are known for both, the share of the first ten "
        "hits with the query's value. ±: standard deviation over training seeds.",
        "",
    ]
    if any(row.likeness_only for row in rows):
        lines += [
            "Ranked by likeness alone: no loss of these rows teaches the heads that predict "
            "values, so there is no probability of a value to add. Likeness alone finds images "
            "like the query, which in `but` lacks a value: its P@10 is low by design.",
            "",
        ]
    lines += conditions_of(result)
    return "\n".join(lines).rstrip() + "\n"


def _model(entries: Sequence[RowResult]) -> list[str]:
    ranked = "likeness" if entries[0].likeness_only else "likeness, presence"
    seeds = "" if entries[0].floor else str(len(entries))
    return [entries[0].title, *(_cell(entries, column) for column in COLUMNS), ranked, seeds]


def _cell(entries: Sequence[RowResult], column: Column) -> str:
    combined = [row.combinations[column.kind] for row in entries if row.combinations is not None]
    values = [scores[column.figure] for scores in combined]
    if any(value is None for value in values):  # no query has an attribute that was not named
        return ""
    return figure(values).text(column.form, column.form)


def _shared(title: str, combined: dict[str, Any], names: Sequence[str | None]) -> list[str]:
    """Chance or ceiling, which are the same for every model."""
    cells = []
    for column, name in zip(COLUMNS, names, strict=True):
        value = None if name is None else combined[column.kind][name]
        cells.append("" if value is None else format(value, column.form))
    return [title, *cells, "", ""]
