"""The decoded images of a split, for benchmarks that encode them in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.decoding import read_batches
from training.errors import DataError, UsageError
from training.preprocessing import Preprocessing
from training.schema import Schema

SEED = 0
EACH_OTHER = "each querying all others"


@dataclass(frozen=True)
class SplitImages:
    """Images of a split that could be read.

    Args:
        dataset: these images; row i is image i.
        pixels: uint8 [M, 3, S, S].
    """

    dataset: Dataset
    pixels: NDArray[np.uint8]


def read_split(
    dataset: Dataset,
    split: str,
    preprocessing: Preprocessing,
    images: int | None,
    workers: int,
) -> SplitImages:
    """Decode a split, or a random part of it.

    Args:
        dataset: where the images are.
        split: train, valid, test or all.
        preprocessing: the model's.
        images: how many at most, drawn with a fixed seed; None: all.
        workers: decoding processes.

    Raises:
        UsageError: no image is in the split.
        DataError: none of them can be read.
    """
    rows = dataset.rows_of(split)
    if not len(rows):
        raise UsageError(f"no image in split {split!r} of {dataset.name}")
    if images is not None and images < len(rows):
        rows = np.sort(np.random.default_rng(SEED).choice(rows, images, replace=False))
    batches = [rows[start : start + 64].tolist() for start in range(0, len(rows), 64)]
    good: list[int] = []
    pixels = []
    for batch in read_batches(dataset.root, dataset.paths, batches, preprocessing, workers):
        good += batch.good
        pixels.append(batch.pixels)
    if not good:
        raise DataError(f"no image of split {split!r} in {dataset.root} can be read")
    return SplitImages(dataset.subset(np.array(good, dtype=np.int64)), np.concatenate(pixels))


def who_asks(dataset: Dataset, split: str) -> str:
    """The queries of a split's MAP in words, as `evaluate_attributes` takes them."""
    if split in dataset.protocols:
        return "queries and candidates of the published lists"
    return EACH_OTHER


def load_for(name: str, root: Path | None, schema: Schema) -> Dataset:
    """A dataset with just the attributes of a model.

    Raises:
        DataError: its values are not the model's.
    """
    dataset = load_dataset(name, root, [attribute.name for attribute in schema.attributes])
    if dataset.schema.hash != schema.hash:
        raise DataError(
            f"the checkpoint was trained on other values than {dataset.name} has; "
            "measure it on the dataset that it was trained on"
        )
    return dataset
