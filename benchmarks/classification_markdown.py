"""The classification figures as Markdown: ours in three tables, published ones in their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.tables.summary import figure
from retrieval.evaluation.published import TABLE_1, TABLE_2, PublishedTable

_UNDER_LABELS = (
    "Heads of the multi-task losses under the labels that the model is told; here it is told "
    "nothing."
)
_UNDER_TYPES = (
    "Value heads, each attribute's values read under its own type condition (what an index stores "
    "as predictions). All-micro ranks probabilities of different attributes together."
)
_CURVE = (
    "The model is told a share of the labels (a single-valued attribute as a whole), drawn with a "
    "fixed seed, and scored on the others alone, known ones taking no part in the ranking. In "
    "brackets: told nothing, scored on the very same labels. An image that is told its category "
    "as an attribute has no category to predict."
)


def classification_markdown(data: dict[str, Any]) -> str:
    """The whole document.

    Args:
        data: what `retrieve bench classification --json` prints.
    """
    lines = [f"# Classification: {data['dataset']}, {data['split']}, {data['backbone']}", ""]
    lines += ["## Told nothing, heads", "", _UNDER_LABELS, ""]
    lines += _headline(data, "under_labels")
    lines += ["", "## Told nothing, type conditions", "", _UNDER_TYPES, ""]
    lines += _headline(data, "under_types")
    lines += ["", "## Told some labels, heads", "", _CURVE, ""]
    lines += _curve(data)
    images, unreadable = data["images"], data["unreadable"]
    lines += [
        "",
        "Percent. Category: top-k accuracy. Attributes: recall@k, hits / positives pooled over "
        "images, ranked among that attribute's values; all-micro: all values ranked together; "
        "all-mean: mean over the attributes. - : no loss of that run trains the head, or the "
        "attribute has no label. "
        f"{images:,} images ({unreadable} unreadable). ±: standard deviation over training seeds "
        f"({_seeds(data)}). Intervals and counts: see the JSON. Commit {data['commit']}, "
        f"{data['machine']}.",
        "",
    ]
    for table in (TABLE_1, TABLE_2):
        lines += _published(table)
    return "\n".join(lines)


def _by_model(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in data["rows"]:
        out.setdefault(row["model"], []).append(row)
    return out


def _headline(data: dict[str, Any], reading: str) -> list[str]:
    """A row a model and k, a column the category, each type, and All in both readings."""
    reports = [row[reading] for row in data["rows"]]
    types = list(dict.fromkeys(name for report in reports for name in report["types"]))
    # Without figures of a category (type conditions have none) there is no column of it.
    top = ["category"] if any(report["category"] for report in reports) else []
    header = ["", "k", *(_heading(n) for n in top), *types, "all-micro", "all-mean"]
    rows = []
    for k, number in enumerate(data["ks"]):
        for model, entries in _by_model(data).items():
            own = [entry[reading] for entry in entries]
            if any(report["category"] or report["types"] for report in own):
                rows.append([model, str(number), *_cells(own, top, types, "recall", k)])
        for title, kind in (("best reachable", "ceiling"), ("chance", "chance")):
            rows.append([title, str(number), *_cells(reports, top, types, kind, k)])
    return markdown_grid(header, rows)


def _cells(
    reports: Sequence[dict[str, Any]],
    top: Sequence[str],
    types: Sequence[str],
    kind: str,
    k: int,
) -> list[str]:
    scores = [[report[name] for report in reports] for name in top]
    scores += [[report["types"].get(name) for report in reports] for name in types]
    scores += [[report[name] for report in reports] for name in ("all-micro", "all-mean")]
    return [_mean(entries, kind, k) for entries in scores]


def _mean(entries: Sequence[dict[str, Any] | None], kind: str, k: int) -> str:
    found = [entry[kind][k] for entry in entries if entry is not None]
    if not found:
        return "-"
    # Chance and ceiling are the same for every model that has the figure.
    return figure(found).text() if kind == "recall" else f"{found[0]:.2f}"


def _curve(data: dict[str, Any]) -> list[str]:
    columns = [
        (name, k)
        for name in ("category", "all-micro", "all-mean")
        for k in (0, min(1, _last(data)))
    ]
    header = ["", "told", *(f"{_heading(name)} @{data['ks'][k]}" for name, k in columns)]
    rows = []
    for model, entries in _by_model(data).items():
        for number, step in enumerate(entries[0]["curve"]):
            cells = []
            for name, k in columns:
                told, not_told = (
                    _mean([e["curve"][number][kind][name] for e in entries], "recall", k)
                    for kind in ("told", "not_told")
                )
                cells.append("-" if told == "-" else f"{told} ({not_told})")
            rows.append([model, f"{step['share']:.0%}", *cells])
    return markdown_grid(header, rows)


def _last(data: dict[str, Any]) -> int:
    return len(data["ks"]) - 1


def _seeds(data: dict[str, Any]) -> str:
    return "; ".join(
        f"{model} {', '.join(str(entry['training_seed']) for entry in entries)}"
        for model, entries in _by_model(data).items()
    )


def _heading(name: str) -> str:
    # Where the category is an attribute as well, its column must not be taken for this one.
    return "category head" if name == "category" else name


def _published(table: PublishedTable) -> list[str]:
    header = ["published", *(f"{name} @{k}" for name in table.columns for k in (3, 5))]
    return [
        f"## Published: {table.title}, DeepFashion",
        "",
        *markdown_grid(header, table.cells()),
        "",
        f"As printed, not reproduced here; which labels the models were told is not stated, and "
        f"rows mix both readings of All. {table.remark}".rstrip(),
        "",
    ]
