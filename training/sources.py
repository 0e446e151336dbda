"""Where a run's batches come from: photographs, or the stored maps of a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.batch_plans import Order
from training.datasets.dataset import Dataset
from training.decoding import ReadBatch, read_batches
from training.map_bank import MapBank, bank_from_trunk
from training.models.conditioned import ConditionedEmbedder
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.trunk_maps import Copy, Tick, trunk_maps

VALIDATION_LIMIT = 4096
"""At most this many images of `valid` are looked at after an epoch, drawn with a fixed seed."""

PIXEL_MEMORY = 1 << 30
"""Decoded images that take at most this many bytes are kept in memory."""

CHUNK = 128


class Source(Protocol):
    """Batches to train on, and what to validate on."""

    rows: NDArray[np.int64]
    """Rows of the train split, [M] int64; without the unreadable ones if all were read at first."""

    frozen: bool
    """Whether batches are maps F of the backbone rather than images."""

    failures: list[tuple[str, str]]
    """(path, reason) of unreadable images met so far."""

    def batches(self, orders: Iterator[Order]) -> Iterator[tuple[list[int], Tensor]]:
        """For each order: the rows that could be read and their images or maps, float32."""
        ...

    def validation_bank(self, model: ConditionedEmbedder) -> tuple[MapBank, Dataset] | None:
        """The validation images' maps under the model as it is now; None without a split."""
        ...


def validation_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Labelled rows of `valid`, ascending, at most `VALIDATION_LIMIT` of them."""
    rows = dataset.rows_of("valid")
    rows = rows[(dataset.labels[rows] == 1).any(axis=1)]
    if len(rows) > VALIDATION_LIMIT:
        rows = np.sort(np.random.default_rng(0).choice(rows, VALIDATION_LIMIT, replace=False))
    return rows


class StoredMaps:
    """Maps of a frozen backbone, of the images and of copies of them; see `trunk_maps`."""

    frozen = True

    def __init__(
        self,
        model: ConditionedEmbedder,
        dataset: Dataset,
        preprocessing: Preprocessing,
        cache: Path,
        device: str,
        workers: int,
        tick: Tick,
        recipe: Recipe,
        retry: bool = True,
    ) -> None:
        train = dataset.rows_of("train")
        wanted = np.union1d(train, validation_rows(dataset))
        maps_of = partial(trunk_maps, retry=retry)
        own = maps_of(model, dataset, wanted, preprocessing, cache, device, workers, tick)
        self.failures = list(own.failures)
        self.rows = np.intersect1d(own.rows, train)
        self._stored = [own]
        for number in range(1, recipe.stored_copies + 1):
            copy = Copy(number, recipe.flip, recipe.crop, recipe.precision)
            stored = maps_of(
                model, dataset, self.rows, preprocessing, cache, device, workers, tick, copy
            )
            self._stored.append(stored)
            self.rows = np.intersect1d(stored.rows, self.rows)
        self._valid_rows = np.setdiff1d(own.rows, train)
        self._valid = dataset.subset(self._valid_rows)
        self._device = device

    def batches(self, orders: Iterator[Order]) -> Iterator[tuple[list[int], Tensor]]:
        """Read the ordered maps, float32 [B, channels, H, W]."""
        for order in orders:
            yield order.rows, self._read(np.array(order.rows), np.array(order.copies))

    def _read(self, rows: NDArray[np.int64], copies: NDArray[np.int64]) -> Tensor:
        out = np.empty((len(rows), *self._stored[0].maps.shape[1:]), dtype=np.float32)
        for copy in np.unique(copies):
            asked, stored = copies == copy, self._stored[copy]
            out[asked] = stored.maps[np.searchsorted(stored.rows, rows[asked])]
        return torch.from_numpy(out)

    def validation_bank(self, model: ConditionedEmbedder) -> tuple[MapBank, Dataset] | None:
        """I and P of the validation rows."""
        if len(self._valid_rows) == 0:
            return None
        every = range(len(self._valid_rows))
        parts = [list(every[i : i + CHUNK]) for i in range(0, len(every), CHUNK)]
        zeros = np.zeros(len(every), dtype=np.int64)
        bank = bank_from_trunk(
            model,
            ((p, self._read(self._valid_rows[p], zeros[p]).to(self._device)) for p in parts),
        )
        return bank, self._valid


class Photographs:
    """Images: kept decoded in memory if they fit, else decoded anew each epoch by workers."""

    frozen = False

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        workers: int,
        tick: Tick,
        memory: int = PIXEL_MEMORY,
    ) -> None:
        self.rows = dataset.rows_of("train")
        self.failures: list[tuple[str, str]] = []
        self._dataset = dataset
        self._preprocessing = preprocessing
        self._workers = workers
        self._kept: dict[int, NDArray[np.uint8]] = {}
        valid = validation_rows(dataset)
        wanted = np.union1d(self.rows, valid)
        if len(wanted) * 3 * preprocessing.size**2 <= memory:
            for rows, shown in ((self.rows, preprocessing.whole), (valid, preprocessing)):
                for batch in self._read(_chunks(rows), shown):
                    self._kept.update(zip(batch.good, batch.pixels, strict=True))
                    tick(len(batch.images))
            readable = np.array(sorted(self._kept), dtype=np.int64)
            self.rows = np.intersect1d(self.rows, readable)
            valid = np.intersect1d(valid, readable)
        self._valid_rows = valid

    def _read(self, batches: Iterable[list[int]], shown: Preprocessing) -> Iterator[ReadBatch]:
        dataset = self._dataset
        for batch in read_batches(dataset.root, dataset.paths, batches, shown, self._workers):
            self.failures += [(dataset.paths[n], why) for n, why in batch.failures]
            yield batch

    def _images(
        self, batches: Iterable[list[int]], shown: Preprocessing
    ) -> Iterator[tuple[list[int], Tensor]]:
        if self._kept:
            for rows in batches:
                pixels = np.stack([self._kept[row] for row in rows])
                yield rows, self._preprocessing.normalise(torch.from_numpy(pixels))
        else:
            for batch in self._read(batches, shown):
                yield batch.good, self._preprocessing.normalise(torch.from_numpy(batch.pixels))

    def batches(self, orders: Iterator[Order]) -> Iterator[tuple[list[int], Tensor]]:
        """Normalised images, float32 [B, 3, S, S]; unreadable ones shorten a batch."""
        return self._images((order.rows for order in orders), self._preprocessing.whole)

    def validation_bank(self, model: ConditionedEmbedder) -> tuple[MapBank, Dataset] | None:
        """I and P of the validation rows, from their photographs."""
        if len(self._valid_rows) == 0:
            return None
        device = next(model.parameters()).device
        bank = bank_from_trunk(
            model,
            (
                (rows, model.trunk(images.to(device)))
                for rows, images in self._images(_chunks(self._valid_rows), self._preprocessing)
                if rows
            ),
        )
        valid = self._dataset.subset(bank.rows)
        bank.renumber()
        return bank, valid


def _chunks(rows: NDArray[np.int64]) -> list[list[int]]:
    return [rows[i : i + CHUNK].tolist() for i in range(0, len(rows), CHUNK)]
