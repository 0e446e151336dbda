"""A table of MAP as Markdown: models, differences, order, published figures, conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.tables.conditions_markdown import conditions_of
from benchmarks.tables.differences_grid import Column, differences_grid
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.published_markdown import published_section
from benchmarks.tables.result import ALL, RowResult, TableResult
from benchmarks.tables.summary import by_model, figure, map_of, steps, title_of


def map_markdown(result: TableResult) -> str:
    """The whole document.

    Args:
        result: at least one entry.
    """
    lines = [f"# {result.title}: {result.dataset}, {result.backbone}", ""]
    lines += map_section(result)
    order = order_lines(result)
    if order:
        lines += ["## Order", "", *order, ""]
    lines += published_section(result)
    lines += conditions_of(result)
    return "\n".join(lines).rstrip() + "\n"


def map_section(result: TableResult) -> list[str]:
    """Lines of the models' MAP by attribute, and of the differences to the reference."""
    lines = [
        *_models(result),
        "",
        f"MAP in percent, {result.mode} conditions, {result.split} split. All: mean over all "
        "queries; mean: plain mean over the attributes; ±: standard deviation over training "
        "seeds; 95 % CI: of All, bootstrap over query images, ends averaged over the seeds; "
        "parameters: backbone included; training: seconds of all epochs with their validation.",
        "",
    ]
    columns = {
        "All" if name == ALL else name: Column(".2f", partial(map_of, column=name))
        for name in (*result.attributes, ALL)
    }
    differences = differences_grid(result, columns)
    if differences:
        lines += [f"## {title_of(result, result.reference)} minus each other row, points", ""]
        lines += [*differences, ""]
    return lines


def order_lines(result: TableResult) -> list[str]:
    """Whether All rises in the expected order, and where it does not; empty without an order."""
    found = steps(result)
    if not found:
        return []
    names = [found[0].lower, *(step.higher for step in found)]
    expected = " < ".join(title_of(result, name) for name in names)
    failing = [step for step in found if not step.holds]
    if not failing:
        return [f"All rises as expected: {expected}."]
    return [f"Expected of All: {expected}. It is not so here:", ""] + [
        f"- {title_of(result, s.higher)} is {-s.gain:.2f} points below {title_of(result, s.lower)}"
        for s in failing
    ]


def _models(result: TableResult) -> list[str]:
    header = ["model", *result.attributes, "All", "seeds", "95 % CI", "mean", "lift"]
    header += ["parameters", "training"]
    rows = [_model(result, entries) for entries in by_model(result.rows).values()]
    chance = [result.chance[name] for name in (*result.attributes, ALL)]
    mean = sum(chance[:-1]) / max(1, len(chance) - 1)
    rows.append(["chance", *(f"{c:.2f}" for c in chance), "", "", f"{mean:.2f}", "1.00", "", ""])
    return markdown_grid(header, rows)


def _model(result: TableResult, entries: Sequence[RowResult]) -> list[str]:
    everything = figure([row.all for row in entries])
    low, high = (figure([row.ci[end] for row in entries]).mean for end in (0, 1))
    seconds = [row.train_seconds for row in entries if row.train_seconds is not None]
    chance = result.chance[ALL]
    return [
        entries[0].title,
        *(f"{figure([map_of(r, name) for r in entries]).mean:.2f}" for name in result.attributes),
        everything.text(),
        "" if entries[0].floor else str(everything.seeds),
        f"{low:.1f} to {high:.1f}",
        f"{figure([row.attribute_mean for row in entries]).mean:.2f}",
        f"{everything.mean / chance:.2f}" if chance else "",
        f"{entries[0].parameters:,}",
        f"{figure(seconds).mean:.0f}" if seconds else "",
    ]
