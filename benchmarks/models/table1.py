"""Category top-k accuracy and attribute recall@k, model beside model, as the paper's Table 1.

    retrieve bench table1 --dataset data/deepfashion --backbone resnet18 --weights FILE

Rows: `benchmarks/tables/table1.toml`; those that learn from landmarks are left out where the data
has none. A model that sees values is read in two ways: its heads under the labels that it is told,
as multi-task training has them (nothing for the headline, then 25, 50 and 75 % of the labels,
scored on the others alone), and its value heads under each attribute's own type condition, as the
index predicts values. Any other is told nothing. Heads that no loss of a run trained are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar

import numpy as np

from benchmarks.common import Data, table
from benchmarks.tables.keys import config_hash
from benchmarks.tables.make_table import Layout, table_command
from benchmarks.tables.measure import SPLIT, Run, Runs
from benchmarks.tables.row_file import TABLE_1 as ROWS
from benchmarks.tables.row_file import config_tables
from benchmarks.tables.summary import Column
from retrieval.evaluation.attribute_map import evaluate_attributes
from retrieval.evaluation.classification import (
    KS,
    ClassificationReport,
    HeadScores,
    RecallScore,
    classification_report,
    draw_known_labels,
    head_scores,
)
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.published import TABLE_1, PublishedTable
from retrieval.evaluation.scorer import feature_embed, root_embed
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets.dataset import Dataset
from training.device import choose_device, keep_freed_memory
from training.maps import MapBank

SHARES = (0.25, 0.5, 0.75)
"""Of the labels, told to the model."""

SHOWN = (3, 5)
"""The k of tables, as the paper has them; all of `KS` are in the JSON."""

Rows = dict[str, list[Data]]


def measure(loaded: Checkpoint, bank: MapBank, dataset: Dataset) -> Data:
    """All figures of one checkpoint on a split's maps, as a JSON-ready dict.

    Returns:
        `under_labels`: heads, told nothing; `under_types`: value heads under type conditions, of a
        model that sees values; `curve`: for each share of labels told, `told` and, on the very same
        labels, `not_told`, likewise; `map`: MAP under type conditions, percent, by `chance_roots`
        and by the cosine of Z. A figure is None where no loss trained the head.
    """
    recipe, labels, model = loaded.training.get("recipe", {}), dataset.labels, loaded.model
    report = partial(classification_report, dataset.schema, labels, dataset.category)
    own, sees = model.teaches_heads, model.sees_values

    def taught(weight: str) -> bool:
        return own or recipe.get(weight, 1) > 0

    def heads(told: Any, shown: Any = None) -> Data:
        scores = head_scores(bank, told)
        attributes = scores.attributes if sees else bank.chances
        values = taught("attribute_weight") if sees else taught("value_weight")
        categories = own or (sees and taught("category_weight"))
        return _json(
            report(
                HeadScores(
                    attributes if values else None, scores.categories if categories else None
                ),
                shown,
            )
        )

    curve = []
    for share in SHARES if sees else ():
        shown = draw_known_labels(labels, dataset.schema, share, 0)
        told, not_told = heads(shown, shown), heads(labels * 0, shown)
        curve.append({"share": share, "told": told, "not_told": not_told})
    chances = bank.chances if taught("value_weight") else None

    def mean(embed: Any) -> float:
        return round(evaluate_attributes(dataset, SPLIT, "type", embed).all.map, 4)

    return {
        "epoch": loaded.training.get("epoch"),
        "checkpoint_hash": loaded.hash,
        "under_labels": heads(labels * 0),
        "under_types": _json(report(HeadScores(chances))) if sees else None,
        "curve": curve,
        "map": {
            "chances": None if chances is None else mean(root_embed(bank)),
            "feature": mean(feature_embed(bank)),
        },
    }


def _json(report: ClassificationReport) -> Data:
    means = {"recall": report.all_mean, "chance": report.all_mean_chance}
    means["ceiling"] = report.all_mean_ceiling
    return {
        "category": _score(report.category),
        "types": {score.name: _score(score) for score in report.types},
        "all-micro": _score(report.all_micro),
        "all-mean": {name: _rounded(own) for name, own in means.items() if own is not None} or None,
    }


def _score(score: RecallScore | None) -> Data | None:
    if score is None:
        return None
    out = asdict(score) | {"ci": [_rounded((i.low, i.high)) for i in score.ci or ()]}
    out |= {name: _rounded(out[name]) for name in ("recall", "chance", "ceiling")}
    return {name: own for name, own in out.items() if name != "name" and own != []}


def _rounded(figures: Sequence[float]) -> list[float]:
    return [round(figure, 4) for figure in figures]


class ClassificationRuns(Runs):
    """Runs of which predictions are measured."""

    kind: ClassVar[str] = "classification"

    def evaluate(self, run: Run) -> Data:
        """`measure` on the test split, and the counts of its images."""
        keep_freed_memory()
        device = choose_device(self.setting.device).device
        loaded = load_checkpoint(self.folder(run), device)
        how = loaded.preprocessing, self.setting.workers, f"encoding for {run.row.name}"
        encoded = encode_split(loaded.model, self.dataset, SPLIT, *how, cache=self.setting.cache)
        parameters = sum(p.numel() for p in loaded.model.parameters())
        counts = {"images": len(encoded.dataset), "unreadable": len(encoded.failures)}
        measured = measure(loaded, encoded.bank, encoded.dataset)
        return measured | counts | {"parameters": parameters}


def result(name: str, runs: Runs) -> Data:
    """The table of all that is kept of its runs; at least one must be."""
    kept = runs.kept()
    told = ("seconds", "epochs", "best_epoch", "validation_map", "machine")
    return {
        "table": name,
        "title": runs.table.title,
        "dataset": runs.dataset.name,
        "split": SPLIT,
        "backbone": runs.setting.backbone,
        "ks": list(KS),
        "images": kept[0][1]["images"],
        "unreadable": kept[0][1]["unreadable"],
        "left_out": list(runs.left_out.values()),
        "hashes": asdict(runs.ground),
        "configs": {run.row.name: config_tables(run.config) for run, _ in kept},
        "rows": [
            {"model": run.row.name, "title": run.row.title, "training_seed": run.config.seed}
            | {"config": config_hash(run.config)}
            | record
            | {"training": {key: (record.get("training") or {}).get(key) for key in told}}
            for run, record in kept
        ],
    }


def markdown(data: Data) -> str:
    """The figures as Markdown: ours as the paper's Table 1, then what else is known of them, and
    published ones in tables of their own."""
    models: Rows = {}
    for row in data["rows"]:
        models.setdefault(row["title"], []).append(row)
    seeds = {str(row["training_seed"]): None for row in data["rows"]}
    seeing: Rows = {name: own for name, own in models.items() if own[0]["under_types"]}
    out = ", ".join(data["left_out"])
    parts = [
        f"# {data['title']}: {data['dataset']}, {data['backbone']}",
        _headline(models, "under_labels"),
        f"Percent, {data['split']} split. Category: top-k accuracy. Attributes: recall@k, hits / "
        "positives pooled over images, ranked among that attribute's values; all-micro: all values "
        "ranked together; all-mean: mean over the attributes. Nothing is told of a picture's "
        "labels. - : no loss of that run trains the head, or the attribute has no label. "
        f"{data['images']:,} images ({data['unreadable']} unreadable). ±: standard deviation over "
        f"training seeds ({', '.join(seeds)}). Intervals, counts, options: see the JSON. "
        f"Commit {data['commit']}, {data['machine']}.",
        out and f"Left out, since they learn from landmarks, of which there are none: {out}.",
        _published(TABLE_1),
        _order(models),
        "## Retrieval by predictions",
        table(
            ["", "MAP, sqrt p", "MAP, cosine of Z"],
            [
                [name, *(_map(own, by) for by in ("chances", "feature"))]
                for name, own in models.items()
            ],
            "Attribute-specific MAP under type conditions, all queries: by the roots of predicted "
            "chances, and by the feature that they are predicted from.",
        ),
        seeing and "## Under type conditions",
        seeing
        and "Value heads, each attribute's values read under its own type condition (what an index "
        "stores as predictions). All-micro ranks probabilities of different attributes together.",
        seeing and _headline(seeing, "under_types"),
        seeing and "## Told some labels",
        seeing
        and "The model is told a share of the labels (a single-valued attribute as a whole), drawn "
        "with a fixed seed, and scored on the others alone, known ones taking no part in the "
        "ranking. In brackets: told nothing, scored on the very same labels. An image that is told "
        "its category as an attribute has no category to predict.",
        seeing and _curve(seeing),
    ]
    return "\n\n".join(part for part in parts if isinstance(part, str) and part)


def _headline(models: Rows, reading: str) -> str:
    """A row a model, two columns the category, each type, and All in both readings."""
    reports = [row[reading] for entries in models.values() for row in entries]
    # Without figures of a category (type conditions have none) there is no column of it.
    columns = ["category"] if any(report["category"] for report in reports) else []
    types = list(dict.fromkeys(name for report in reports for name in report["types"]))
    names = [*columns, *types, "all-micro", "all-mean"]
    header = ["", *(f"{_heading(n) if n in columns else n} @{k}" for n in names for k in SHOWN)]

    def cells(own: list[Data], kind: str) -> list[str]:
        found = [[report[name] for report in own] for name in columns]
        found += [[report["types"].get(name) for report in own] for name in types]
        found += [[report[name] for report in own] for name in ("all-micro", "all-mean")]
        return [_mean(entries, kind, k) for entries in found for k in SHOWN]

    rows = []
    for model, entries in models.items():
        own = [entry[reading] for entry in entries]
        if any(report["category"] or report["types"] for report in own):
            rows.append([model, *cells(own, "recall")])
    rows.append(["best reachable", *cells(reports, "ceiling")])
    rows.append(["chance", *cells(reports, "chance")])
    return table(header, rows)


def _curve(models: Rows) -> str:
    columns = [(name, k) for name in ("category", "all-micro", "all-mean") for k in KS[:2]]
    header = ["", "told", *(f"{_heading(name)} @{k}" for name, k in columns)]
    rows = []
    for model, entries in models.items():
        for number, step in enumerate(entries[0]["curve"]):
            cells = []
            for name, k in columns:
                told, not_told = (
                    _mean([e["curve"][number][kind][name] for e in entries], "recall", k)
                    for kind in ("told", "not_told")
                )
                cells.append("-" if told == "-" else f"{told} ({not_told})")
            rows.append([model, f"{step['share']:.0%}", *cells])
    return table(header, rows)


def _mean(entries: list[Data | None], kind: str, k: int) -> str:
    found = [entry[kind][KS.index(k)] for entry in entries if entry is not None]
    if not found:
        return "-"
    # Chance and ceiling are the same for every model that has the figure.
    return Column(kind, ()).text(found) if kind == "recall" else f"{found[0]:.2f}"


def _map(entries: list[Data], by: str) -> str:
    return Column(by, ()).text([entry["map"][by] for entry in entries]) or "-"


def _order(models: Rows) -> str:
    """How alike the order of rows is to the published one: Spearman's rank correlation."""
    own = {name: entries for name, entries in models.items() if name in TABLE_1.rows}
    told = []
    for name, path, place in (("category", "category", 0), ("All, mean", "all-mean", -2)):
        pairs = []
        for model, entries in own.items():
            found = [e["under_labels"][path] for e in entries]
            published = TABLE_1.rows[model][place]
            if all(found) and published is not None:
                pairs.append((np.mean([f["recall"][KS.index(3)] for f in found]), published))
        if len(pairs) > 2:
            each = np.array(pairs).T  # [2, rows]
            ranks = (each[:, :, None] > each[:, None]).sum(-1)
            ranks = ranks + 0.5 * (each[:, :, None] == each[:, None]).sum(-1)  # ties share one
            alike = float(np.asarray(np.corrcoef(ranks))[0, 1])
            told.append(f"{name} @3 {alike:.2f} of {len(pairs)} rows")
    return f"Rank correlation with the published rows: {'; '.join(told)}." if told else ""


def _heading(name: str) -> str:
    # Where the category is an attribute as well, its column must not be taken for this one.
    return "category head" if name == "category" else name


def _published(published: PublishedTable) -> str:
    header = ["published", *(f"{name} @{k}" for name in published.columns for k in SHOWN)]
    note = (
        "As printed, not reproduced here; which labels the models were told is not stated, and "
        f"rows mix both readings of All. {published.remark}"
    )
    rows = table(header, published.cells(), note.strip())
    return f"## Published: {published.title}, DeepFashion\n\n{rows}"


command = table_command(
    "table1",
    ROWS,
    "M2Fashion and the systems of its paper's Table 1: how well categories and attributes are "
    "predicted, told nothing and told some labels.",
    Layout(ClassificationRuns, result, markdown),
)
