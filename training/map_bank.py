"""Maps of a split held in memory, and its embeddings under any condition.

What evaluation and validation use instead of an index: I and P in half precision, the head run
over them once a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.dataset import Dataset
from training.decoding import read_batches
from training.models.conditioned import ConditionedEmbedder
from training.preprocessing import Preprocessing
from training.schema import Condition
from training.trunk_maps import Tick, trunk_maps


class MapBank:
    """I and P of some rows of a dataset.

    Args:
        model: the embedder, in inference mode.
        rows: dataset rows of the maps, [M] int64.
        maps: I [M, *, h, w] float16.
        keys: P [M, *, h, w] float16; its channels need not be those of I.
        pooled: average-pooled F [M, channels] float32, L2-normalised: the untrained floor.
        chances: probability of every value [M, K] float32.
        nuance: unit vectors side by side [M, N] float32.
    """

    def __init__(
        self,
        model: ConditionedEmbedder,
        rows: NDArray[np.int64],
        maps: Tensor,
        keys: Tensor,
        pooled: NDArray[np.float32],
        chances: NDArray[np.float32],
        nuance: NDArray[np.float32],
    ) -> None:
        self.model = model
        self.rows = rows
        self.maps = maps
        self.keys = keys
        self.pooled = pooled
        self.chances = chances
        self.nuance = nuance
        self._place = {int(row): place for place, row in enumerate(rows)}

    def renumber(self) -> None:
        """Call the rows 0..M-1, to go with `dataset.subset(bank.rows)`."""
        self.rows = np.arange(len(self.rows), dtype=np.int64)
        self._place = {place: place for place in range(len(self.rows))}

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of dataset rows in the bank, [M] int64; KeyError for a row it does not hold."""
        return np.array([self._place[int(row)] for row in rows], dtype=np.int64)

    def embed(
        self, condition: Condition, rows: NDArray[np.int64], chunk: int = 512
    ) -> NDArray[np.float32]:
        """Z of `rows` under one condition: float32 [M, d], L2-normalised.

        Args:
            condition: label states [K].
            rows: dataset rows, [M].
            chunk: maps taken to float32 at a time.
        """
        device = next(self.model.parameters()).device
        states = torch.from_numpy(condition).float().unsqueeze(0).to(device)
        return self._run(
            lambda maps, keys: self.model.attend(maps, states, keys), rows, self.model.width, chunk
        )

    def _run(
        self,
        head: Callable[[Tensor, Tensor], Tensor],
        rows: NDArray[np.int64],
        width: int,
        chunk: int,
    ) -> NDArray[np.float32]:
        """`head` of I and P of `rows`, `chunk` of them at a time: float32 [M, width]."""
        device = next(self.model.parameters()).device
        places = self.places(rows)
        out = np.empty((len(rows), width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), chunk):
                part = torch.from_numpy(places[start : start + chunk])
                maps = self.maps[part].to(device).float()
                keys = self.keys[part].to(device).float()
                out[start : start + len(part)] = head(maps, keys).cpu().numpy()
        return out


def bank_from_trunk(
    model: ConditionedEmbedder, batches: Iterable[tuple[list[int], Tensor]]
) -> MapBank:
    """Run `reduce` and `keys` over trunk maps and keep the results.

    Args:
        model: the embedder; it is put into inference mode.
        batches: (dataset rows, F [B, channels, H, W] float32) of each batch.
    """
    model.eval()
    rows: list[int] = []
    maps, keys = [], []
    pooled, chances, nuance = [], [], []
    with torch.inference_mode():
        for batch_rows, trunk in batches:
            standard = model.standardise(trunk)
            reduced = model.reduce(standard)
            own_keys = model.keys(reduced)
            rows += batch_rows
            maps.append(reduced.half().cpu())
            keys.append(own_keys.half().cpu())
            mean = torch.nn.functional.normalize(trunk[:, model.last_stage].mean((2, 3)), dim=-1)
            pooled.append(mean.float().cpu().numpy())
            described = model.describe_maps(standard, reduced, own_keys)
            chances.append(described.chances.float().cpu().numpy())
            nuance.append(described.nuance.float().cpu().numpy())
    empty = torch.zeros(0, model.dim, *model.grid, dtype=torch.float16)
    return MapBank(
        model,
        np.array(rows, dtype=np.int64),
        torch.cat(maps) if maps else empty,
        torch.cat(keys) if keys else empty,
        _joined(pooled, 1),
        _joined(chances, model.schema.size),
        _joined(nuance, model.layout.nuance),
    )


def _joined(parts: list[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros((0, width), dtype=np.float32)


def bank_from_images(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    workers: int,
    tick: Tick,
    batch_size: int = 64,
) -> tuple[MapBank, tuple[tuple[str, str], ...]]:
    """Decode and encode images into a bank.

    Args:
        model: the embedder.
        dataset: where the images are.
        rows: which of them.
        preprocessing: size and mode.
        workers: decoding processes.
        tick: progress.
        batch_size: images a forward pass.

    Returns:
        The bank of the readable images, and (path, reason) of the others.
    """
    failures: list[tuple[str, str]] = []
    device = next(model.parameters()).device
    model.eval()

    def trunk_batches() -> Iterable[tuple[list[int], Tensor]]:
        batches = [rows[i : i + batch_size].tolist() for i in range(0, len(rows), batch_size)]
        for batch in read_batches(dataset.root, dataset.paths, batches, preprocessing, workers):
            failures.extend((dataset.paths[n], reason) for n, reason in batch.failures)
            if batch.good:
                images = preprocessing.normalise(torch.from_numpy(batch.pixels).to(device))
                yield batch.good, model.trunk(images.contiguous(memory_format=torch.channels_last))
            tick(len(batch.images))

    return bank_from_trunk(model, trunk_batches()), tuple(failures)


def bank_from_cache(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    cache: Path,
    workers: int,
    tick: Tick,
    batch_size: int = 128,
) -> tuple[MapBank, tuple[tuple[str, str], ...]]:
    """As `bank_from_images`, through a cache of the backbone's maps (float16).

    Args:
        model: the embedder.
        dataset: where the images are.
        rows: which of them, ascending.
        preprocessing: size and mode.
        cache: folder of the cache, as `trunk_maps` keeps it.
        workers: decoding processes.
        tick: progress.
        batch_size: images a pass of the head.
    """
    device = next(model.parameters()).device
    stored = trunk_maps(model, dataset, rows, preprocessing, cache, str(device), workers, tick)
    batches = (
        (
            stored.rows[i : i + batch_size].tolist(),
            torch.from_numpy(stored.maps[i : i + batch_size].astype(np.float32)).to(device),
        )
        for i in range(0, len(stored.rows), batch_size)
    )
    return bank_from_trunk(model, batches), stored.failures
