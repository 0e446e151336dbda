"""Category top-k accuracy and attribute recall@k of trained models (Tables 1 and 2).

    retrieve bench classification --dataset data/fashion-products \\
        --checkpoint M2Fashion=runs/a --checkpoint "without ASA=runs/b"

A name given several times stands for several seeds of one model. Each model is read in two ways:
its heads under the labels that it is told, as multi-task training has them (nothing for the
headline, then 25, 50 and 75 % of the labels, scored on the others alone), and its value heads
under each attribute's own type condition, as the index predicts values. Heads that no loss of a
run trained are left out. Writes the figures to `benchmarks/results/`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.classification_markdown import classification_markdown
from benchmarks.machine import commit_name, machine_name
from benchmarks.named_runs import named_run
from benchmarks.tables.keys import data_hash
from benchmarks.write_results import RESULTS, split_suffix, write_results
from indexer.device import choose_device
from retrieval.console import print_json, stderr
from retrieval.dataset_options import dataset_options
from retrieval.evaluation.classification import (
    KS,
    ClassificationReport,
    RecallScore,
    classification_report,
    draw_known_labels,
    head_scores,
)
from retrieval.evaluation.encoded_split import encode_split
from training.allocator import keep_freed_memory
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.map_bank import MapBank

SHARES = (0.25, 0.5, 0.75)
"""Of the labels, told to the model."""


@click.command("classification")
@dataset_options
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="NAME=RUN",
    help="May be repeated; the same name again is another seed of it.",
)
@click.option("--split", default="test", show_default=True, help="train, valid, test or all.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of the labels told and of the intervals.",
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    checkpoints: tuple[str, ...],
    split: str,
    seed: int,
    results: Path,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Measure how well models predict categories and attributes, from nothing and from labels."""
    keep_freed_memory()
    place = choose_device(device).device
    named = [named_run(text) for text in checkpoints]
    first = load_checkpoint(named[0][1], place)
    dataset = load_dataset(name, root, [a.name for a in first.schema.attributes])
    rows = []
    for model, folder in named:
        loaded = load_checkpoint(folder, place)
        check_fits(loaded, dataset, first, str(folder))
        encoded = encode_split(
            loaded.model, dataset, split, loaded.preprocessing, workers, f"encoding for {model}"
        )
        rows.append({"model": model} | measure(loaded, encoded.bank, encoded.dataset, seed))
        stderr.print(f"{model} ({folder.name}) measured", markup=False)
    backbone = first.model.config.backbone
    data: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "backbone": backbone,
        "ks": list(KS),
        "images": len(encoded.dataset),
        "unreadable": len(encoded.failures),
        "seed": seed,
        "data": data_hash(dataset),
        "commit": commit_name(),
        "machine": machine_name(device),
        "rows": rows,
    }
    stem = f"classification-{dataset.name}-{backbone}{split_suffix(split, 'test')}"
    write_results(results, stem, data, classification_markdown(data))
    if as_json:
        print_json(data)
    else:
        click.echo(classification_markdown(data))


def measure(loaded: Checkpoint, bank: MapBank, dataset: Dataset, seed: int) -> dict[str, Any]:
    """All figures of one checkpoint as a JSON-ready dict.

    Args:
        loaded: the checkpoint.
        bank: maps of all rows of `dataset`, in their order.
        dataset: labels and categories.
        seed: of the labels told and of the intervals.

    Returns:
        `under_labels`: heads, told nothing; `under_types`: value heads under type conditions;
        `curve`: for each share of labels told, `told` and, on the very same labels, `not_told`.
        A figure is None where no loss trained the head.
    """
    recipe = loaded.training.get("recipe", {})
    schema, labels, category = dataset.schema, dataset.labels, dataset.category
    attributes_trained = recipe.get("attribute_weight", 1) > 0
    types_trained = recipe.get("value_weight", 1) > 0
    categories_trained = recipe.get("category_weight", 1) > 0
    untold = head_scores(bank, labels * 0)

    def report(told: Any = None, intervals: bool = True) -> ClassificationReport:
        scores = untold if told is None else head_scores(bank, told[0])
        return classification_report(
            schema,
            labels,
            category,
            scores.attributes if attributes_trained else None,
            scores.categories if categories_trained else None,
            None if told is None else told[1],
            intervals,
            seed,
        )

    curve = []
    for share in SHARES:
        shown = draw_known_labels(labels, schema, share, seed)
        curve.append(
            {
                "share": share,
                "told": _json(report((shown, shown), intervals=False)),
                "not_told": _json(report((labels * 0, shown), intervals=False)),
            }
        )
    by_type = classification_report(
        schema,
        labels,
        category,
        bank.chances if types_trained else None,
        None,
        seed=seed,
    )
    return {
        "training_seed": loaded.training.get("seed"),
        "epoch": loaded.training.get("epoch"),
        "checkpoint_hash": loaded.hash,
        "under_labels": _json(report()),
        "under_types": _json(by_type),
        "curve": curve,
    }


def check_fits(loaded: Checkpoint, dataset: Dataset, first: Checkpoint, folder: str) -> None:
    """Make sure that a checkpoint's figures can stand in one table with the first one's.

    Raises:
        DataError: its attributes, values or categories are not the dataset's.
        UsageError: it is of another backbone.
    """
    if loaded.schema.hash != dataset.schema.hash:
        raise DataError(
            f"{folder} was trained on other attributes or values than {dataset.name} has "
            f"({loaded.schema.size} values against {dataset.schema.size}); name a run that was "
            "trained on this dataset"
        )
    if loaded.categories and loaded.categories != dataset.category_names:
        raise DataError(
            f"{folder} was trained on other categories than {dataset.name} has "
            f"({len(loaded.categories)} against {len(dataset.category_names)}, or in another order)"
        )
    own, other = loaded.model.config.backbone, first.model.config.backbone
    if own != other:
        raise UsageError(f"{folder} has the backbone {own}, the first run {other}; a table has one")


def _json(report: ClassificationReport) -> dict[str, Any]:
    return {
        "category": _score(report.category),
        "types": {score.name: _score(score) for score in report.types},
        "all-micro": _score(report.all_micro),
        "all-mean": _means(report),
    }


def _means(report: ClassificationReport) -> dict[str, list[float]] | None:
    figures = {
        "recall": report.all_mean,
        "chance": report.all_mean_chance,
        "ceiling": report.all_mean_ceiling,
    }
    return {n: _rounded(f) for n, f in figures.items() if f is not None} or None


def _score(score: RecallScore | None) -> dict[str, Any] | None:
    if score is None:
        return None
    out = asdict(score)
    for name in ("recall", "chance", "ceiling"):
        out[name] = _rounded(out[name])
    del out["name"]
    if score.ci is None:
        del out["ci"]
    else:
        out["ci"] = [_rounded((i.low, i.high)) for i in score.ci]
    return out


def _rounded(figures: tuple[float, ...]) -> list[float]:
    return [round(figure, 4) for figure in figures]


if __name__ == "__main__":
    command()
