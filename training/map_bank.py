"""Maps of pictures held in memory, and their embeddings under any condition.

What evaluation and validation use instead of an index: I and P in half precision, the head run
over them once a condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.datasets.dataset import Dataset
from training.decoding import Reading
from training.models.conditioned import ConditionedEmbedder
from training.schema import Condition
from training.trunk_maps import BATCH, encoded, trunk_maps

Batches = Iterator[tuple[list[int], Tensor]]
"""Dataset rows, and their F [B, channels, H, W] float32."""


@dataclass(frozen=True)
class MapBank:
    """I and P of pictures, and what else is read from F."""

    model: ConditionedEmbedder  # the embedder, in inference mode
    dataset: Dataset  # the M pictures, in the order of the arrays
    maps: Tensor  # I [M, *, h, w] float16
    keys: Tensor  # P [M, *, h, w] float16; its channels need not be those of I
    # average-pooled F [M, channels] float32, L2-normalised: the untrained floor
    pooled: NDArray[np.float32]
    chances: NDArray[np.float32]  # probability of every value [M, K] float32
    nuance: NDArray[np.float32]  # unit vectors side by side [M, N] float32

    @property
    def rows(self) -> NDArray[np.int64]:
        """0..M-1."""
        return self.dataset.rows_of("all")

    def embed(
        self, condition: Condition, rows: NDArray[np.int64], chunk: int = 512
    ) -> NDArray[np.float32]:
        """Z of `rows` of the bank under one condition: float32 [len(rows), d], L2-normalised.

        Args:
            condition: label states [K].
            rows: in 0..M-1.
            chunk: maps taken to float32 at a time.
        """
        device = next(self.model.parameters()).device
        states = torch.from_numpy(condition).float().unsqueeze(0).to(device)
        out = np.empty((len(rows), self.model.width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), chunk):
                part = torch.from_numpy(rows[start : start + chunk])
                maps, keys = (of[part].to(device).float() for of in (self.maps, self.keys))
                z = self.model.attend(maps, states, keys)
                out[start : start + len(part)] = z.cpu().numpy()
        return out


def bank_from_trunk(model: ConditionedEmbedder, dataset: Dataset, batches: Batches) -> MapBank:
    """Run the head over F and keep what it gives; the model is put into inference mode."""
    model.eval()
    rows: list[int] = []
    empty = torch.zeros(0, model.dim, *model.grid, dtype=torch.float16)
    widths = (0, model.schema.size, model.layout.nuance)
    kept = [[empty], [empty], *([torch.zeros(0, width)] for width in widths)]
    with torch.inference_mode():
        for batch_rows, trunk in batches:
            if not rows:  # the first batch tells the shapes
                kept = [[] for _ in kept]
            rows += batch_rows
            standard = model.standardise(trunk)
            reduced = model.reduce(standard)
            keys = model.keys(reduced)
            described = model.describe_maps(standard, reduced, keys)
            pooled = F.normalize(trunk[:, model.last_stage].mean((2, 3)), dim=-1).float()
            found = (reduced.half(), keys.half(), pooled, *(part.float() for part in described))
            for parts, part in zip(kept, found, strict=True):
                parts.append(part.cpu())
    maps, keys, *others = (torch.cat(parts) for parts in kept)
    part = dataset.subset(np.array(rows, dtype=np.int64))
    return MapBank(model, part, maps, keys, *(other.numpy() for other in others))


def bank_from_images(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    reading: Reading,
    cache: Path | None = None,
) -> tuple[MapBank, tuple[tuple[str, str], ...]]:
    """Decode and encode images into a bank.

    Args:
        model: the embedder, on its device.
        dataset: where the images are.
        rows: which of them; ascending with a cache.
        reading: how they are read.
        cache: folder that keeps the backbone's maps (float16), see `trunk_maps`; None keeps none.

    Returns:
        The bank of the readable images, and (path, reason) of the others.
    """
    model.eval()
    if cache is not None:
        device = next(model.parameters()).device
        stored = trunk_maps(model, dataset, rows, reading, cache)
        starts = range(0, len(stored.rows), BATCH)
        parts = ((stored.rows[i : i + BATCH], stored.maps[i : i + BATCH]) for i in starts)
        own = ((n.tolist(), torch.from_numpy(maps).to(device).float()) for n, maps in parts)
        return bank_from_trunk(model, dataset, own), stored.failures
    failures: list[tuple[int, str]] = []
    bank = bank_from_trunk(model, dataset, encoded(model, dataset, rows, reading, failures))
    return bank, tuple((dataset.paths[row], reason) for row, reason in failures)
