"""Tags of trained models: how right they are, what known labels add, which wrong labels are found.

    retrieve bench tagging --dataset data/fashion-products --checkpoint runs/a --checkpoint runs/b

Each checkpoint is another seed of one model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Bench, Data, Result, bench_command, table
from benchmarks.tables.keys import data_hash
from benchmarks.tables.summary import Column
from retrieval.evaluation import report_grid
from retrieval.evaluation.classification import draw_known_labels, head_scores
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.tagging import AIM, evaluate_tags
from retrieval.options import PATH, DatasetOptions
from retrieval.tags import (
    Floats,
    beside_labels,
    company,
    least_chances,
    outcome_chances,
    outcomes,
    support_of,
    thresholds,
)
from training.checkpoint import load_checkpoint
from training.datasets.dataset import Dataset
from training.device import choose_device, keep_freed_memory
from training.errors import DataError
from training.maps import MapBank
from training.schema import Schema

TOLD = (0.0, 0.25, 0.5, 0.75)
"""Shares of the labels that are known when the others are predicted."""

SETS = 0.9
"""Share of what is true that sets should hold."""

WRONG = 0.05
"""Share of the labels that are made wrong, and of those that are looked at."""

COLUMNS = {
    "accuracy": "accuracy", "frequent": "most frequent", "f1": "F1",
    "coverage": f"coverage at {AIM:.0%}", "confidence": "from a chance of",
    "calibration_error": "ECE", "held": "sets hold", "size": "values a set",
}  # fmt: skip


def measure(part: Dataset, bank: MapBank, training: Data) -> Data:
    """All figures of one checkpoint, which notes this of its training, on a split's maps; raises
    DataError without any label."""
    by = thresholds(training, part.schema)
    report = evaluate_tags(part, bank.chances, least=by)
    if report is None:
        raise DataError(f"no image of this split of {part.name} is labelled")
    found = [_found(part.schema, part.labels, bank.chances, seed) for seed in range(5)]
    tags = report_grid.to_json(report)
    for name, sets in _sets(part, bank.chances, training).items():
        tags["attributes"][name] |= sets
    return {
        "tags": tags,
        "known": {f"{share:.0%}": _with_known(part, bank, share) for share in TOLD},
        "errors_found": round(float(np.mean(found)), 4),
    }


def _sets(part: Dataset, chances: Floats, training: Data) -> dict[str, dict[str, float]]:
    """Of sets that should hold what is true `SETS` of the time: how often they do, and how many
    values they have in the mean; by attribute. Nothing of a model trained without `valid`."""
    if "true_chances" not in training:
        return {}
    least, out = least_chances(training, part.schema, SETS), {}
    every = outcome_chances(part.schema, chances)
    real = outcomes(part.schema, part.labels)
    for number, attribute in enumerate(part.schema.attributes):
        own = np.arange(*part.schema.offsets[number : number + 2])
        if attribute.optional:
            own = np.append(own, part.schema.size + number)
        true, held = real[:, own], every[:, own] >= least[number]
        if true.any():
            sizes = held[true.any(axis=1)].sum(axis=1)
            out[attribute.name] = {"held": float(held[true].mean()), "size": float(sizes.mean())}
    return out


def _with_known(part: Dataset, bank: MapBank, share: float) -> dict[str, float]:
    """Mean accuracy over single-valued attributes, of the labels that are not told, by a way."""
    schema = part.schema
    told = draw_known_labels(part.labels, schema, share)
    hidden = np.where((told == 0) & ~schema.multi[schema.attribute_of], part.labels, 0)

    def of_heads(known: NDArray[np.int8]) -> Floats | None:
        logits = head_scores(bank, known).attributes
        return None if logits is None else np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    ways: dict[str, Floats | None] = {
        "type conditions, nothing known": bank.chances,
        "with the company of known labels": beside_labels(
            schema, company(schema, told), told, bank.chances
        ),
        "heads, nothing known": of_heads(told * 0),
        "heads, told what is known": of_heads(told),
    }
    reports = {
        way: evaluate_tags(replace(part, labels=hidden.astype(np.int8)), scores)
        for way, scores in ways.items()
        if scores is not None
    }
    return {way: round(one.accuracy, 4) for way, one in reports.items() if one is not None}


def swapped_labels(
    labels: NDArray[np.int8], schema: Schema, share: float, seed: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Label states [N, K] in which, of a share of the labels (image and attribute), drawn with a
    seed, one value is exchanged for another; and which labels these are, [N, attributes]."""
    generator, out = np.random.default_rng(seed), labels.copy()
    known = np.logical_or.reduceat(labels == 1, schema.offsets[:-1], axis=1)
    places = np.argwhere(known)
    changed = np.zeros_like(known)
    for row, number in generator.permutation(places)[: round(share * len(places))].tolist():
        own = out[row, schema.slice_of(number)]  # a view
        others = np.flatnonzero(own != 1)
        if len(others):
            own[generator.choice(np.flatnonzero(own == 1))] = -1
            own[generator.choice(others)] = 1
            changed[row, number] = True
    return out, changed


def _found(schema: Schema, labels: NDArray[np.int8], chances: Floats, seed: int) -> float:
    """Share of wrong labels among as many of the least supported."""
    wrong, changed = swapped_labels(labels, schema, WRONG, seed)
    support = support_of(schema, wrong, chances)
    looked_at = np.argsort(support, axis=None, kind="stable")[: changed.sum()]
    return float(changed.reshape(-1)[looked_at].mean())


def markdown(data: Data) -> str:
    """The figures as Markdown: means and sample standard deviations over seeds."""
    rows = data["rows"]

    def line(name: str, *paths: tuple[str, ...]) -> list[str]:
        columns = (Column("", path, ".3f", path[-1] != "frequent") for path in paths)
        return [name, *(column.text([column.of(row) for row in rows]) for column in columns)]

    attributes = rows[0]["tags"]["attributes"]
    there = {c: heading for c, heading in COLUMNS.items() if c in next(iter(attributes.values()))}
    tags = [line(n, *(("tags", "attributes", n, c) for c in there)) for n in attributes]
    mean = [line("", ("tags", c))[1] if c in rows[0]["tags"] else "" for c in there]
    tags.append(["mean", *mean])
    told = rows[0]["known"]
    ways = list(dict.fromkeys(way for found in told.values() for way in found))
    known = [line(way, *(("known", share, way) for share in told)) for way in ways]
    seeds = ", ".join(str(row["training_seed"]) for row in rows)
    parts = [
        f"{data['dataset']}, {data['split']} split, {data['backbone']}, {data['images']:,} images, "
        f"training seeds {seeds}. accuracy: of several values all have to be right. F1: mean over "
        f"values. coverage: share of images, the surest first, of which {AIM:.0%} are right. "
        f"ECE: expected calibration error. sets hold: how often sets of `tag --coverage {SETS}` "
        "have a true value.",
        table(["attribute", *there.values()], tags),
        "With a share of the labels known, accuracy of the others, mean over single-valued "
        "attributes (down a column the same labels are asked for):",
        table(["", *(f"{share} known" for share in told)], known),
        f"{WRONG:.0%} of the labels made wrong, of pictures that the model was not trained on: "
        f"share of them among the {WRONG:.0%} that `retrieve inspect --suspicious` doubts most "
        f"(five draws): {line('', ('errors_found',))[1]}.",
        f"Commit {data['commit']}, {data['machine']}.",
    ]
    return "\n\n".join(parts)


_CHECKPOINTS = click.option(
    "--checkpoint", "checkpoints", type=PATH, multiple=True, required=True, metavar="RUN",
    help="May be repeated: other seeds.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(Bench, DatasetOptions):
    """Which runs tag what."""

    checkpoints: Annotated[tuple[Path, ...], _CHECKPOINTS]
    split: Annotated[str, "A split of the dataset, or all."] = "test"
    cache: Annotated[Path | None, "Folder that keeps the backbone's maps for the next run."] = None


@bench_command("tagging", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure predicted labels, by attribute, over seeds."""
    keep_freed_memory()
    device = choose_device(options.device).device
    loaded = [load_checkpoint(folder, device) for folder in options.checkpoints]
    dataset, backbone = options.load(loaded[0].schema), loaded[0].config.backbone
    rows: list[Data] = []
    for folder, one in zip(options.checkpoints, loaded, strict=True):
        if one.schema.hash != dataset.schema.hash or one.config.backbone != backbone:
            raise DataError(
                f"{folder} was trained with other attributes or another backbone than the first "
                f"run and {dataset.name}; name seeds of one model"
            )
        how = one.preprocessing, options.workers
        encoded = encode_split(one.model, dataset, options.split, *how, cache=options.cache)
        whose = {"training_seed": one.training.get("seed"), "checkpoint_hash": one.hash}
        rows.append(whose | measure(encoded.dataset, encoded.bank, one.training))
    yield (
        f"tagging-{dataset.name}-{backbone}"
        + ("" if options.split == "test" else f"-{options.split}"),
        {
            "dataset": dataset.name,
            "split": options.split,
            "backbone": backbone,
            "images": len(encoded.dataset),
            "data": data_hash(dataset),
            "rows": rows,
        },
    )
