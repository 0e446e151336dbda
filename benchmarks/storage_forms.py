"""Forms in which maps can be stored: what they take, and what is read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.quantise import LEVELS, QuantisedMaps, dequantise, quantise

Stored = tuple[NDArray[np.generic], ...]
"""Arrays, image-major, as they would lie in a file."""


@dataclass(frozen=True)
class StorageForm:
    """How maps [M, d, H, W] float32 are stored.

    Args:
        name: in words.
        store: maps to what is kept.
        load: what is kept of some images, and (H, W), to maps float32.
    """

    name: str
    store: Callable[[Tensor], Stored]
    load: Callable[[Stored, tuple[int, int]], Tensor]

    def round(self, maps: Tensor) -> Tensor:
        """Maps as they are read back."""
        return self.load(self.store(maps), (maps.shape[2], maps.shape[3]))


def bytes_an_image(stored: Stored) -> float:
    """Size of what is kept, divided by the number of images."""
    return sum(part.nbytes for part in stored) / len(stored[0])


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Stored]:
    def store(maps: Tensor) -> Stored:
        rows = maps.flatten(2).transpose(1, 2)  # [M, L, d], as a shard has them
        return (rows.to(dtype).contiguous().numpy(),)

    return store


def _load_plain(stored: Stored, grid: tuple[int, int]) -> Tensor:
    rows = torch.from_numpy(stored[0]).float()
    return rows.view(len(rows), *grid, rows.shape[-1]).permute(0, 3, 1, 2)


def _store_by_location(maps: Tensor) -> Stored:
    kept = quantise(maps)
    return kept.values, kept.scales


def _store_by_image(maps: Tensor) -> Stored:
    rows = maps.flatten(2).transpose(1, 2)
    scales = rows.abs().amax((1, 2), keepdim=True).clamp(min=1e-12) / LEVELS
    values = (rows / scales).round().to(torch.int8).contiguous().numpy()
    return values, scales[:, 0].numpy()  # [M, L, d] and [M, 1], which stands for all locations


def _load_int8(stored: Stored, grid: tuple[int, int]) -> Tensor:
    values, scales = stored
    return dequantise(QuantisedMaps(values, scales), grid)  # type: ignore[arg-type]


FORMS = (
    StorageForm("float32", _plain(torch.float32), _load_plain),
    StorageForm("fp16", _plain(torch.float16), _load_plain),
    StorageForm("int8, a scale a location", _store_by_location, _load_int8),
    StorageForm("int8, a scale an image", _store_by_image, _load_int8),
)
