"""Where a run's batches come from: photographs, or the stored maps of a frozen backbone or stem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.dataset import Dataset
from training.images.batches import ReadBatch, Reading, read_batches
from training.images.landmarks import in_square, moved
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.maps import Copy, Inputs, MapBank, MapCache, bank_from_trunk, trunk_maps
from training.models.config import Freeze
from training.models.embedder import ConditionedEmbedder
from training.recipe import Recipe
from training.sampling import BatchPlan, plain

VALIDATION_LIMIT = 4096
"""At most this many images of `valid` are looked at after an epoch, drawn with a fixed seed."""

PIXEL_MEMORY = 1 << 30
"""Decoded images that take at most this many bytes are kept in memory."""

CHUNK = 128


def validation_rows(dataset: Dataset) -> NDArray[np.int64]:
    """Labelled rows of `valid`, ascending, at most `VALIDATION_LIMIT` of them."""
    rows = dataset.rows_of("valid")
    rows = rows[dataset.schema.labelled(dataset.labels[rows]).any(axis=1)]
    if len(rows) > VALIDATION_LIMIT:
        rows = np.sort(np.random.default_rng(0).choice(rows, VALIDATION_LIMIT, replace=False))
    return rows


class Source(ABC):
    """Batches to train on, and what to validate on."""

    def __init__(self, dataset: Dataset, freeze: Freeze) -> None:
        self.dataset = dataset
        self.freeze = freeze
        """What batches are, as `ConditionedEmbedder.trunk_from` takes them."""
        self.rows = dataset.rows_of("train")
        """Of the train split [M] int64; without the unreadable ones if all were read at first."""
        self.valid_rows = validation_rows(dataset)
        self.failures: list[tuple[str, str]] = []
        """(path, reason) of unreadable images met so far."""
        self._landmarks: list[Tensor] = []

    @abstractmethod
    def batches(self, orders: Iterator[BatchPlan]) -> Inputs:
        """For each order: the rows that could be read and their images or maps."""

    @abstractmethod
    def validation_inputs(self) -> Inputs:
        """The images or maps of the validation rows, batch by batch."""

    @abstractmethod
    def locate(self) -> None:
        """Work out where the landmarks lie in all that is trained on; before `landmarks`."""

    def landmarks(self, order: BatchPlan) -> Tensor | None:
        """Of the images or maps of a batch, as `batches` gives them [B, L, 3], see
        `training/images/landmarks.py`; None if they were not located."""
        if not self._landmarks:
            return None
        pairs = zip(order.copies, order.rows, strict=True)
        return torch.stack([self._landmarks[copy][row] for copy, row in pairs])

    def _located(self, rows: NDArray[np.int64], shown: Preprocessing) -> Tensor:
        """Landmarks of some rows in a list of all [N, L, 3], 0 elsewhere."""
        found = torch.from_numpy(in_square(self.dataset, rows, shown))
        out = found.new_zeros(len(self.dataset), *found.shape[1:])
        out[torch.from_numpy(rows)] = found
        return out

    def validation_bank(self, model: ConditionedEmbedder) -> MapBank | None:
        """The validation images' maps under the model as it is now; None without a split."""
        if len(self.valid_rows) == 0:
            return None
        device = next(model.parameters()).device
        own = ((rows, inputs.to(device)) for rows, inputs in self.validation_inputs() if rows)
        trunk = ((rows, model.trunk_from(inputs, self.freeze)) for rows, inputs in own)
        return bank_from_trunk(model, self.dataset, trunk)


class StoredMaps(Source):
    """Maps of a frozen backbone or stem, of the images and of the recipe's copies of them;
    `trunk_maps` makes them."""

    def __init__(
        self,
        model: ConditionedEmbedder,
        dataset: Dataset,
        reading: Reading,
        cache: Path,
        recipe: Recipe,
        retry: bool = True,
    ) -> None:
        super().__init__(dataset, recipe.freeze)
        train, wanted = self.rows, np.union1d(self.rows, self.valid_rows)
        kept = MapCache(cache, recipe.freeze == "stem", retry)
        own = trunk_maps(model, dataset, wanted, reading, kept)
        self.failures += own.failures
        self.rows = np.intersect1d(own.rows, train)
        self.valid_rows = np.setdiff1d(own.rows, train)
        self._stored, self._shown = [own], reading.preprocessing
        self._copies: list[tuple[Copy, NDArray[np.int64]]] = []
        for number in range(1, recipe.stored_copies + 1):
            copy = Copy(number, recipe.flip, recipe.crop, recipe.precision)
            self._copies.append((copy, self.rows))
            self._stored.append(trunk_maps(model, dataset, self.rows, reading, kept, copy))
            self.rows = np.intersect1d(self._stored[-1].rows, self.rows)

    def batches(self, orders: Iterator[BatchPlan]) -> Inputs:
        """Read the ordered maps."""
        for order in orders:
            rows, copies = np.array(order.rows), np.array(order.copies)
            out = np.empty((len(rows), *self._stored[0].maps.shape[1:]), dtype=np.float32)
            for copy in np.unique(copies):
                asked, stored = copies == copy, self._stored[copy]
                out[asked] = stored.maps[np.searchsorted(stored.rows, rows[asked])]
            yield order.rows, torch.from_numpy(out)

    def locate(self) -> None:
        """In the images' own views, and in every copy's."""
        self._landmarks = [self._located(self.rows, self._shown)]
        whole = self._located(self.rows, self._shown.whole) if self._copies else None
        for copy, rows in self._copies:
            assert whole is not None
            changed, drawn = whole.clone(), torch.from_numpy(rows)
            changed[drawn] = moved(whole[drawn], copy.draw(len(rows)))
            self._landmarks.append(changed)

    def validation_inputs(self) -> Inputs:
        """Their own maps."""
        return self.batches(plain(self.valid_rows, CHUNK))


class Photographs(Source):
    """Images: kept decoded in so many bytes of memory if they fit, else decoded anew each epoch by
    workers."""

    def __init__(self, dataset: Dataset, reading: Reading, memory: int = PIXEL_MEMORY) -> None:
        super().__init__(dataset, "none")
        self._reading = reading
        self._shown, self._whole = reading.preprocessing, reading.preprocessing.whole
        self._kept: dict[int, NDArray[np.uint8]] = {}
        wanted = np.union1d(self.rows, self.valid_rows)
        if len(wanted) * 3 * self._shown.size**2 <= memory:
            for rows, shown in ((self.rows, self._whole), (self.valid_rows, self._shown)):
                for batch in self._read(_chunks(rows), shown):
                    self._kept.update(zip(batch.good, batch.pixels, strict=True))
                    reading.tick(len(batch.images))
            readable = np.array(sorted(self._kept), dtype=np.int64)
            self.rows = np.intersect1d(self.rows, readable)
            self.valid_rows = np.intersect1d(self.valid_rows, readable)

    def batches(self, orders: Iterator[BatchPlan]) -> Inputs:
        """Whole pictures; unreadable ones shorten a batch."""
        return self._images((order.rows for order in orders), self._whole)

    def locate(self) -> None:
        """In the whole pictures."""
        self._landmarks = [self._located(self.rows, self._whole)]

    def validation_inputs(self) -> Inputs:
        """Pictures as an index shows them."""
        return self._images(_chunks(self.valid_rows), self._shown)

    def _images(self, batches: Iterable[list[int]], shown: Preprocessing) -> Inputs:
        if self._kept:
            for rows in batches:
                pixels = np.stack([self._kept[row] for row in rows])
                yield rows, normalise(torch.from_numpy(pixels), shown)
        else:
            for batch in self._read(batches, shown):
                yield batch.good, normalise(torch.from_numpy(batch.pixels), shown)

    def _read(self, batches: Iterable[list[int]], shown: Preprocessing) -> Iterator[ReadBatch]:
        paths, workers = self.dataset.paths, self._reading.workers
        for batch in read_batches(self.dataset.root, paths, batches, shown, workers):
            self.failures += [(paths[n], why) for n, why in batch.failures]
            yield batch


def _chunks(rows: NDArray[np.int64]) -> list[list[int]]:
    return [rows[i : i + CHUNK].tolist() for i in range(0, len(rows), CHUNK)]
