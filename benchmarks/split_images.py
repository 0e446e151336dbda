"""The decoded images of a split, for benchmarks that encode them in several ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.encode import torch_forward
from retrieval.evaluation.attribute_map import Embed
from retrieval.progress_bars import CountBar
from training.checkpoint import Checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.decoding import read_batches
from training.errors import DataError, UsageError
from training.models.conditioned import ConditionedEmbedder
from training.preprocessing import Preprocessing
from training.schema import Condition, Schema

SEED = 0
EACH_OTHER = "each querying all others"
_CHUNK = 256
_BATCH = 32

ReadMaps = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]
"""Rows [B] -> I [B, d, H, W] float32, and P likewise or None where it is to be computed from I."""


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


def encode_all(loaded: Checkpoint, pixels: NDArray[np.uint8], title: str) -> Tensor:
    """I of images uint8 [M, 3, S, S], by torch in float32: [M, d, H, W]."""
    loaded.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch_forward(loaded.model)
    out = torch.empty(len(pixels), loaded.model.dim, *loaded.model.grid)
    with CountBar(f"encoding, {title}", len(pixels)) as bar, torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            piece = torch.from_numpy(pixels[start : start + _BATCH])
            out[start : start + len(piece)] = forward(loaded.preprocessing.normalise(piece)).maps
            bar(len(piece))
    return out


def maps_embed(model: ConditionedEmbedder, read: ReadMaps) -> Embed:
    """Embeddings from maps that `read` gives, some hundred at a time."""

    def embed(condition: Condition, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        state = torch.from_numpy(np.asarray(condition, dtype=np.float32)).unsqueeze(0)
        out = np.empty((len(rows), model.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), _CHUNK):
                maps, keys = read(rows[start : start + _CHUNK])
                out[start : start + len(maps)] = model.attend(maps, state, keys).numpy()
        return out

    return embed
