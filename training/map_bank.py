"""Maps of pictures held in memory, and their embeddings under any condition.

What evaluation and validation use instead of an index: I and P in half precision, the head run
over them once a condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.datasets.dataset import Dataset
from training.decoding import Reading, read_batches
from training.models.conditioned import ConditionedEmbedder
from training.schema import Condition
from training.trunk_maps import BATCH, trunk_maps

Batches = Iterable[tuple[list[int], Tensor]]
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
    device = next(model.parameters()).device
    model.eval()
    if cache is not None:
        stored = trunk_maps(model, dataset, rows, reading, cache)
        batches = (
            (stored.rows[i : i + BATCH].tolist(), torch.from_numpy(stored.maps[i : i + BATCH]))
            for i in range(0, len(stored.rows), BATCH)
        )
        own = ((part, maps.to(device).float()) for part, maps in batches)
        return bank_from_trunk(model, dataset, own), stored.failures
    failures: list[tuple[str, str]] = []

    def encoded() -> Iterator[tuple[list[int], Tensor]]:
        shown = reading.preprocessing
        listed = [rows[i : i + BATCH].tolist() for i in range(0, len(rows), BATCH)]
        for batch in read_batches(dataset.root, dataset.paths, listed, shown, reading.workers):
            failures.extend((dataset.paths[n], reason) for n, reason in batch.failures)
            if batch.good:
                images = shown.normalise(torch.from_numpy(batch.pixels).to(device))
                yield batch.good, model.trunk(images.contiguous(memory_format=torch.channels_last))
            reading.tick(len(batch.images))

    return bank_from_trunk(model, dataset, encoded()), tuple(failures)
