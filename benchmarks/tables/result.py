"""A table as measured, one entry a model and seed, and as Markdown.

MAP, chance and their intervals, Top-30 and NDCG in percent; MRR, precision@10 and keep@10 in
[0, 1].
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from benchmarks.common import Data, table
from benchmarks.tables.keys import config_hash
from benchmarks.tables.measure import Run, Runs
from benchmarks.tables.row_file import config_tables
from benchmarks.tables.summary import Column, by_title, differences, means, title
from retrieval.evaluation.published import published_for

ALL = "all"

COLUMNS = (
    Column("All", (ALL,)),
    Column("MRR", ("likeness", "query", "mrr"), ".3f"),
    Column("hard MRR", ("likeness", "query", "hard_mrr"), ".3f"),
    Column("Top-30", ("manipulation", "top30"), ".1f"),
    Column("NDCG@30", ("manipulation", "ndcg"), ".1f"),
    Column("same P@10", ("combinations", "same", "precision_at_10"), ".3f"),
    Column("but P@10", ("combinations", "but", "precision_at_10"), ".3f"),
    Column("but keep@10", ("combinations", "but", "keep_at_10"), ".3f"),
    Column("training", ("train_seconds",), ".0f", spread=False),
)
"""What is told of every row after its MAP by attribute."""

CHANCE = {"precision_at_10": "precision_chance", "keep_at_10": "keep_chance"}
CEILING = {"precision_at_10": "precision_ceiling"}
"""Figure of combinations -> name of its chance, or of the best that can be reached."""


def table_result(name: str, runs: Runs) -> Data:
    """Put a table together from all that is kept of its runs; at least one must be."""
    kept = runs.kept()
    first = kept[0][1]
    scores = {**first["attributes"], ALL: first["all"]}
    counted = ("queries", "candidates", "queries_without_relevant")
    return {
        "table": name,
        "title": runs.table.title,
        "dataset": runs.dataset.name,
        "backbone": runs.setting.backbone,
        **{key: first[key] for key in ("split", "mode", "protocol", "definition", "images")},
        "reference": runs.table.reference,
        "left_out": list(runs.left_out.values()),
        "chance": {name: score["chance"] for name, score in scores.items()},
        "counts": {name: {c: score[c] for c in counted} for name, score in scores.items()},
        "hashes": asdict(runs.ground),
        "configs": {run.row.name: config_tables(run.config) for run, _ in kept},
        "rows": [_row(run, record) for run, record in kept],
    }


def _row(run: Run, record: dict[str, Any]) -> Data:
    training = record.get("training") or {}
    changed = record["manipulation"]
    scores = record["attributes"]
    return {
        "model": run.row.name,
        "title": run.row.title,
        "floor": run.row.floor,
        "seed": run.config.seed,
        "all": record["all"]["map"],
        "attributes": {name: score["map"] for name, score in scores.items()},
        "attribute_mean": record["attribute_mean"],
        "ci": record["all"]["ci"],
        "attributes_ci": {name: score["ci"] for name, score in scores.items()},
        "parameters": record["parameters"],
        "train_seconds": training.get("seconds"),
        "setup_seconds": training.get("setup_seconds"),
        **{key: training.get(key) for key in ("epochs", "best_epoch", "validation_map")},
        "combinations": record["combinations"],
        "likeness_only": run.likeness_only,
        "config": config_hash(run.config),
        "commit": record["commit"],
        "machine": record["machine"],
        "train_machine": training.get("machine"),
        "likeness": record["likeness"],
        "manipulation": changed and {key: changed[key] for key in changed if key != "curve"},
    }


def markdown(data: Data) -> str:
    """Every row's figures, the reference minus each other row, and how it was measured."""
    rows = data["rows"]
    maps = [Column(name, ("attributes", name), spread=False) for name in data["chance"]]
    known = [*maps[:-1], *COLUMNS]
    everything = [column for column in known if any(column.of(r) is not None for r in rows)]
    gains = [replace(column, spread=True) for column in everything if column != COLUMNS[-1]]
    note = (
        f"{data['split']} split. MAP in percent under {data['mode']} conditions, by attribute and "
        "over all queries; MRR of the first other picture of the query's item; hard: of the half "
        "whose nearest picture is least alike by the floor; Top-30 and NDCG@30 in percent, of "
        "exchanging one value; combinations of two and three values, that the query has (same) or "
        "of which it lacks one (but): P@10, the share of the first ten hits that have them all, "
        "keep@10, the share with the query's other known values; training: seconds of all epochs "
        "with their validation. ±: standard deviation over training seeds. What a dataset cannot "
        "tell has no column."
    )
    alone = "; ".join(by_title([row for row in rows if row["likeness_only"]]))
    alike = alone and (
        f"Combinations are ranked by likeness alone for: {alone}. No loss of these rows teaches "
        "the heads that predict values, so there is no probability of a value to add."
    )
    reference = next((title(r) for r in rows if r["model"] == data["reference"]), "")
    points = differences(rows, gains, data["reference"])
    parts = (
        f"# {data['title']}: {data['dataset']}, {data['backbone']}",
        means(rows, everything, note, alike, shared=_shared(data)),
        points and f"## {reference} minus each other row\n\n{points}",
        _published(data),
        conditions(data),
    )
    return "\n\n".join(filter(None, parts))


def _shared(data: Data) -> list[Data]:
    """Chance, and of combinations the best that can be reached."""
    drawn = [row["combinations"] for row in data["rows"] if row["combinations"] is not None]
    lines = []
    for name, names in (("best reachable", CEILING), ("chance", CHANCE)):
        line: Data = {"title": name}
        for kind in ("same", "but") if drawn else ():
            own = {figure: drawn[0][kind].get(key) for figure, key in names.items()}
            line.setdefault("combinations", {})[kind] = own
        lines.append(line)
    lines[-1] |= {"attributes": data["chance"], ALL: data["chance"][ALL]}
    return lines if drawn else lines[-1:]


def _published(data: Data) -> str:
    """Figures that papers print of the same lists, in a table of their own, never among ours."""
    queries = data["counts"][ALL]["queries"]
    own = published_for(data["dataset"], data["split"], data["mode"], queries)
    if own is None or data["protocol"] != "published lists":
        return ""
    rows = own.cells()
    remark = f"As printed in the papers, not reproduced here. {own.remark}".strip()
    return "## Published MAP\n\n" + table(["published", *own.columns], rows, remark)


def conditions(data: Data) -> str:
    """Definition, counts, pixels, epochs, seeds, commits, hashes and machines."""
    rows, configs = data["rows"], data["configs"]
    trained = [row for row in rows if not row["floor"]]

    def listed(name: str, among: list[Data]) -> str:
        return ", ".join(sorted({str(row[name]) for row in among if row[name] is not None}))

    sizes = sorted({configs[row["model"]]["preprocessing"]["size"] for row in rows})
    epochs = sorted({configs[row["model"]]["recipe"]["epochs"] for row in trained})
    counts = data["counts"][ALL]
    hashes = ", ".join(f"{key.replace('_', ' ')} {h[:16]}" for key, h in data["hashes"].items())
    lines = [
        f"split {data['split']} ({data['images']:,} images), mode {data['mode']}",
        f"queries and candidates: {data['protocol']}; {counts['queries']:,} queries, "
        f"{counts['queries_without_relevant']:,} without a relevant candidate",
        f"pictures of {', '.join(map(str, sizes))} pixels a side",
        f"epochs: {', '.join(map(str, epochs))}; training seeds: {listed('seed', trained)}",
        f"trained on {listed('train_machine', trained)}; measured on {listed('machine', rows)}",
        f"commit {listed('commit', rows)}",
        f"SHA-256: {hashes}; of each row's options: see the JSON",
    ]
    if data.get("left_out"):
        lines.append(f"left out, for want of landmarks: {', '.join(data['left_out'])}")
    points = "\n".join(f"- {line}" for line in lines)
    return f"## How it was measured\n\n{data['definition']}\n\n{points}"
