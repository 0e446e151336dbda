"""Category top-k accuracy and attribute recall@k of trained models (Tables 1 and 2).

    retrieve bench classification --dataset data/fashion-products \\
        --checkpoint M2Fashion=runs/a --checkpoint "without ASA=runs/b"

A name given several times stands for several seeds of one model. Each model is read in two ways:
its heads under the labels that it is told, as multi-task training has them (nothing for the
headline, then 25, 50 and 75 % of the labels, scored on the others alone), and its value heads
under each attribute's own type condition, as the index predicts values. Heads that no loss of a
run trained are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click

from benchmarks.common import Bench, Data, Result, bench_command, table
from benchmarks.tables.keys import data_hash
from benchmarks.tables.summary import Column
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
from retrieval.evaluation.published import TABLE_1, TABLE_2, PublishedTable
from retrieval.options import DatasetOptions
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets.dataset import Dataset
from training.device import choose_device, keep_freed_memory
from training.errors import DataError, UsageError
from training.maps import MapBank

SHARES = (0.25, 0.5, 0.75)
"""Of the labels, told to the model."""

Rows = dict[str, list[Data]]


def measure(loaded: Checkpoint, bank: MapBank, dataset: Dataset) -> Data:
    """All figures of one checkpoint on a split's maps, as a JSON-ready dict.

    Returns:
        `under_labels`: heads, told nothing; `under_types`: value heads under type conditions;
        `curve`: for each share of labels told, `told` and, on the very same labels, `not_told`.
        A figure is None where no loss trained the head.
    """
    recipe, labels = loaded.training.get("recipe", {}), dataset.labels
    report = partial(classification_report, dataset.schema, labels, dataset.category)

    def heads(told: Any, shown: Any = None) -> Data:
        scores = head_scores(bank, told)
        attributes = scores.attributes if recipe.get("attribute_weight", 1) > 0 else None
        categories = scores.categories if recipe.get("category_weight", 1) > 0 else None
        return _json(report(HeadScores(attributes, categories), shown))

    curve = []
    for share in SHARES:
        shown = draw_known_labels(labels, dataset.schema, share, 0)
        told, not_told = heads(shown, shown), heads(labels * 0, shown)
        curve.append({"share": share, "told": told, "not_told": not_told})
    chances = bank.chances if recipe.get("value_weight", 1) > 0 else None
    return {
        "training_seed": loaded.training.get("seed"),
        "epoch": loaded.training.get("epoch"),
        "checkpoint_hash": loaded.hash,
        "under_labels": heads(labels * 0),
        "under_types": _json(report(HeadScores(chances))),
        "curve": curve,
    }


def check_fits(loaded: Checkpoint, dataset: Dataset, backbone: str, folder: str) -> None:
    """Raises DataError or UsageError if a checkpoint's figures do not fit into one table."""
    same = loaded.schema.hash == dataset.schema.hash
    if not same or loaded.categories not in ((), dataset.category_names):
        raise DataError(
            f"{folder} was trained on other attributes, values or categories than {dataset.name} "
            "has; name a run that was trained on this dataset"
        )
    own = loaded.model.config.backbone
    if own != backbone:
        raise UsageError(f"{folder} has the backbone {own}, the first run {backbone}; a table one")


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


def markdown(data: Data) -> str:
    """The figures as Markdown: ours in three tables, published ones in their own."""
    models: Rows = {}
    for row in data["rows"]:
        models.setdefault(row["model"], []).append(row)
    seeds = "; ".join(
        f"{model} {', '.join(str(entry['training_seed']) for entry in entries)}"
        for model, entries in models.items()
    )
    parts = [
        f"# Classification: {data['dataset']}, {data['split']}, {data['backbone']}",
        "## Told nothing, heads",
        "Heads of the multi-task losses under the labels that the model is told; here it is told "
        "nothing.",
        _headline(models, data["ks"], "under_labels"),
        "## Told nothing, type conditions",
        "Value heads, each attribute's values read under its own type condition (what an index "
        "stores as predictions). All-micro ranks probabilities of different attributes together.",
        _headline(models, data["ks"], "under_types"),
        "## Told some labels, heads",
        "The model is told a share of the labels (a single-valued attribute as a whole), drawn "
        "with a fixed seed, and scored on the others alone, known ones taking no part in the "
        "ranking. In brackets: told nothing, scored on the very same labels. An image that is told "
        "its category as an attribute has no category to predict.",
        _curve(models, data["ks"]),
        "Percent. Category: top-k accuracy. Attributes: recall@k, hits / positives pooled over "
        "images, ranked among that attribute's values; all-micro: all values ranked together; "
        "all-mean: mean over the attributes. - : no loss of that run trains the head, or the "
        f"attribute has no label. {data['images']:,} images ({data['unreadable']} unreadable). "
        f"±: standard deviation over training seeds ({seeds}). Intervals and counts: see the JSON. "
        f"Commit {data['commit']}, {data['machine']}.",
        _published(TABLE_1),
        _published(TABLE_2),
    ]
    return "\n\n".join(parts)


def _headline(models: Rows, ks: list[int], reading: str) -> str:
    """A row a model and k, a column the category, each type, and All in both readings."""
    reports = [row[reading] for entries in models.values() for row in entries]
    # Without figures of a category (type conditions have none) there is no column of it.
    columns = ["category"] if any(report["category"] for report in reports) else []
    types = list(dict.fromkeys(name for report in reports for name in report["types"]))
    header = ["", "k", *map(_heading, columns), *types, "all-micro", "all-mean"]
    rows = []
    for k, number in enumerate(ks):

        def cells(own: list[Data], kind: str, k: int = k) -> list[str]:
            found = [[report[name] for report in own] for name in columns]
            found += [[report["types"].get(name) for report in own] for name in types]
            found += [[report[name] for report in own] for name in ("all-micro", "all-mean")]
            return [_mean(entries, kind, k) for entries in found]

        for model, entries in models.items():
            own = [entry[reading] for entry in entries]
            if any(report["category"] or report["types"] for report in own):
                rows.append([model, str(number), *cells(own, "recall")])
        rows.append(["best reachable", str(number), *cells(reports, "ceiling")])
        rows.append(["chance", str(number), *cells(reports, "chance")])
    return table(header, rows)


def _curve(models: Rows, ks: list[int]) -> str:
    columns = [(name, k) for name in ("category", "all-micro", "all-mean") for k in (0, 1)]
    header = ["", "told", *(f"{_heading(name)} @{ks[k]}" for name, k in columns)]
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
    found = [entry[kind][k] for entry in entries if entry is not None]
    if not found:
        return "-"
    # Chance and ceiling are the same for every model that has the figure.
    return Column(kind, ()).text(found) if kind == "recall" else f"{found[0]:.2f}"


def _heading(name: str) -> str:
    # Where the category is an attribute as well, its column must not be taken for this one.
    return "category head" if name == "category" else name


def _published(published: PublishedTable) -> str:
    header = ["published", *(f"{name} @{k}" for name in published.columns for k in (3, 5))]
    note = (
        "As printed, not reproduced here; which labels the models were told is not stated, and "
        f"rows mix both readings of All. {published.remark}"
    )
    rows = table(header, published.cells(), note.strip())
    return f"## Published: {published.title}, DeepFashion\n\n{rows}"


_CHECKPOINTS = click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="NAME=RUN",
    help="May be repeated; the same name again is another seed of it.",
)


@dataclass(frozen=True, kw_only=True)
class Options(Bench, DatasetOptions):
    """Which models predict what."""

    checkpoints: Annotated[tuple[str, ...], _CHECKPOINTS]
    split: Annotated[str, "train, valid, test or all."] = "test"


@bench_command("classification", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure how well models predict categories and attributes, from nothing and from labels."""
    keep_freed_memory()
    named, split = [_named_run(text) for text in options.checkpoints], options.split
    device = choose_device(options.device).device
    models = [load_checkpoint(folder, device) for _, folder in named]
    dataset = options.load(models[0].schema)
    backbone = models[0].model.config.backbone
    rows = []
    for (model, folder), loaded in zip(named, models, strict=True):
        check_fits(loaded, dataset, backbone, str(folder))
        how = loaded.preprocessing, options.workers, f"encoding for {model}"
        encoded = encode_split(loaded.model, dataset, split, *how)
        rows.append({"model": model} | measure(loaded, encoded.bank, encoded.dataset))
    yield (
        f"classification-{dataset.name}-{backbone}" + ("" if split == "test" else f"-{split}"),
        {
            "dataset": dataset.name,
            "split": split,
            "backbone": backbone,
            "ks": list(KS),
            "images": len(encoded.dataset),
            "unreadable": len(encoded.failures),
            "data": data_hash(dataset),
            "rows": rows,
        },
    )


def _named_run(text: str) -> tuple[str, Path]:
    """Name and folder of a `NAME=RUN` option; raises UsageError."""
    name, equals, folder = text.partition("=")
    if not (equals and name.strip() and folder):
        raise UsageError(f"--checkpoint {text!r} is not of the form NAME=RUN")
    return name.strip(), Path(folder)
