"""A split's readable images as a bank of maps: what measuring a checkpoint begins with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.store.gallery import align_labels
from retrieval.console import counting
from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.errors import DataError, UsageError
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import MapBank, bank_from_images
from training.models.embedder import ConditionedEmbedder
from training.schema import Schema, normalise_name


@dataclass(frozen=True)
class EncodedSplit:
    """Images of a split that could be read, whose rows are the bank's, and (path, reason) of the
    others."""

    dataset: Dataset
    bank: MapBank
    failures: tuple[tuple[str, str], ...]


def encode_split(
    model: ConditionedEmbedder,
    dataset: Dataset,
    split: str,
    preprocessing: Preprocessing,
    workers: int,
    title: str = "encoding",
    cache: Path | None = None,
) -> EncodedSplit:
    """Read and encode the images of a split, with a progress bar.

    The model is on its device; `split` may be all; `workers` are decoding threads; `title` is of
    the bar; `cache` is a folder that keeps the maps for the next checkpoint of the same backbone.

    Raises:
        UsageError: no image is in the split.
        DataError: none of them can be read.
    """
    part = dataset.subset(dataset.rows_of(split))
    if len(part) == 0:
        there = ", ".join(sorted({str(s) for s in dataset.splits} - {""})) or "none"
        raise UsageError(f"no image in split {split!r}; splits of {dataset.name}: {there}, or all")
    rows = part.rows_of("all")
    with counting(title, len(part)) as bar:
        reading = Reading(preprocessing, workers, bar)
        bank, failures = bank_from_images(model, part, rows, reading, cache)
    if len(bank.rows) == 0:
        raise DataError(f"no image of split {split!r} in {dataset.root} could be read")
    return EncodedSplit(bank.dataset, bank, failures)


@dataclass(frozen=True)
class AlignedDataset:
    """A dataset with a model's schema, and what was left out.

    Args:
        dataset: labels and published lists in the model's numbering. What the dataset does not
            know is unknown of every image.
        unknown_to_model: attributes (`pattern`) and values (`colour:teal`) of the dataset alone.
        unknown_to_dataset: those of the model alone.
    """

    dataset: Dataset
    unknown_to_model: tuple[str, ...]
    unknown_to_dataset: tuple[str, ...]


def align_dataset(dataset: Dataset, schema: Schema) -> AlignedDataset:
    """Renumber labels and published lists as a model's schema does, by name.

    Raises:
        DataError: they have no value in common, so that nothing is left to measure.
    """
    own = dataset.schema
    if own.hash == schema.hash:
        return AlignedDataset(dataset, (), ())
    places = _places(own, schema)
    if (places < 0).all():
        raise DataError(
            f"{dataset.name} and the checkpoint have no value in common: its attributes are "
            f"{', '.join(a.name for a in own.attributes)}, the model's "
            f"{', '.join(a.name for a in schema.attributes)}; name the columns of labels.csv and "
            "their values as the model does"
        )

    def renumbered(listed: RetrievalList) -> RetrievalList:
        """The statements about values that both know."""
        new = places[np.array(own.offsets)[listed.attributes] + listed.values]
        kept, new = new >= 0, new[new >= 0]
        attributes = schema.attribute_of[new]
        return RetrievalList(
            listed.rows[kept], attributes, new - np.array(schema.offsets)[attributes]
        )

    protocols = {
        split: RetrievalProtocol(renumbered(lists.queries), renumbered(lists.candidates))
        for split, lists in dataset.protocols.items()
    }
    labels = align_labels(dataset.labels, own, schema)[0]
    aligned = replace(dataset, schema=schema, labels=labels, protocols=protocols)
    return AlignedDataset(aligned, own.unknown_to(schema), schema.unknown_to(own))


def _places(source: Schema, target: Schema) -> NDArray[np.int64]:
    """Flat index in `target` of each value of `source`, -1 where it has none, [K] int64."""
    names, theirs = (
        [(normalise_name(a.name), normalise_name(v)) for a in schema.attributes for v in a.values]
        for schema in (source, target)
    )
    number = {name: flat for flat, name in enumerate(theirs)}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)
