"""A split's readable images as a bank of maps: what measuring a checkpoint begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrieval.console import counting
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import MapBank, bank_from_images
from training.models.embedder import ConditionedEmbedder


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

    The model is on its device; `split` may be all; `workers` are decoding processes; `title` is of
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
