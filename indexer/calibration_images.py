"""A few of the gallery's own images, always the same ones, to measure an int8 network on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.errors import DataError
from training.images.batches import read_batches
from training.images.preprocessing import Preprocessing

_BATCH = 16


def calibration_images(
    root: Path, paths: Sequence[str], preprocessing: Preprocessing, count: int = 64
) -> Tensor:
    """A random sample of a gallery's readable images, normalised [<= count, 3, S, S].

    Args:
        root: folder that the paths are relative to.
        paths: of the gallery.
        preprocessing: the model's.
        count: how many; all if there are fewer.

    Raises:
        DataError: none is readable.
    """
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    batches = (order[start : start + _BATCH] for start in range(0, len(order), _BATCH))
    found: list[Tensor] = []
    for batch in read_batches(root, paths, batches, preprocessing, workers=0):
        found += preprocessing.normalise(torch.from_numpy(batch.pixels)).unbind()
        if len(found) >= count:
            return torch.stack(found[:count])
    if not found:
        raise DataError(f"none of the {len(paths):,} images in {root} can be read")
    return torch.stack(found)
