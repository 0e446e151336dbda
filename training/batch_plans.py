"""Which images each batch of a run holds: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.dataset import Dataset
from training.distributed import Processes
from training.errors import UsageError
from training.recipe import Recipe
from training.triplets import TripletSampler


@dataclass(frozen=True)
class BatchPlan:
    """The images of one batch, or of a share of it."""

    # dataset rows [B]; with sampled triplets the three of one, then the three of the next
    rows: list[int]
    copies: list[int]  # which stored copy of each image, 1-based; 0 is the image itself [B]
    # with sampled triplets, the attribute of each row's triplet [B] int64
    attribute: NDArray[np.int64] | None = None

    def own(self, processes: Processes) -> slice:
        """Where a process' share lies."""
        return processes.share(len(self.rows))

    def order(self, processes: Processes) -> BatchPlan:
        """What a process is to read of it."""
        own = self.own(processes)
        return BatchPlan(self.rows[own], self.copies[own])

    @staticmethod
    def by_triplet(values: Tensor) -> Tensor:
        """What belongs to the rows, [B], as [3, M], a column a triplet."""
        return values.reshape(-1, 3).T

    @staticmethod
    def by_image(values: Tensor) -> Tensor:
        """What belongs to the triplets, [M], for each row [B]."""
        return values.repeat_interleave(3)


def plain(rows: NDArray[np.int64], size: int) -> Iterator[BatchPlan]:
    """Rows as they are, `size` at a time."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size].tolist()
        yield BatchPlan(part, [0] * len(part))


class BatchPlans:
    """The batches of a run.

    Args:
        dataset: labels, for triplets.
        rows: readable rows of the train split, [M] int64.
        recipe: batch size, sampling, epochs.
        seed: of every draw.
        shares: processes that share each batch.
        partners: whether half of each batch are partners of the other half, for nuance: another
            picture of the same item, drawn, else another copy of the picture.

    Raises:
        UsageError: a batch cannot be shared evenly.
    """

    def __init__(
        self,
        dataset: Dataset,
        rows: NDArray[np.int64],
        recipe: Recipe,
        seed: int,
        shares: int = 1,
        partners: bool = False,
    ) -> None:
        check_shares(recipe, shares)
        self._others = _others(dataset, rows) if partners else None
        self._rows, self._recipe, self._seed = rows, recipe, seed
        self._sampler: TripletSampler | None = None
        if recipe.sampling == "triplets":
            self._sampler = TripletSampler(dataset.labels, dataset.schema, rows)
            self._size = recipe.batch_size
            self.steps = max(1, recipe.triplets_per_epoch // self._size)
        else:
            self._size = min(recipe.batch_size, len(rows))
            if shares > 1:  # a small split's last images are left out
                self._size -= self._size % shares
            self.steps = len(rows) // max(1, self._size)
        if self._size < shares:
            raise UsageError(
                f"{shares} processes cannot share {len(rows)} training images; start fewer"
            )

    def after(self, epochs: int) -> Iterator[BatchPlan]:
        """The batches of all epochs but the first `epochs`."""
        for epoch in range(epochs, self._recipe.epochs):
            generator = torch.Generator().manual_seed(epoch_seed(self._seed, epoch))
            yield from self._triplets(generator) if self._sampler else self._orders(generator)

    def _orders(self, generator: torch.Generator) -> Iterator[BatchPlan]:
        order = self._rows[torch.randperm(len(self._rows), generator=generator).numpy()]
        for start in range(0, self.steps * self._size, self._size):
            rows = order[start : start + self._size].tolist()
            plan = BatchPlan(rows, self._copies(len(rows), generator))
            if self._others is not None:
                self._pair(plan, self._others, generator)
            yield plan

    def _pair(
        self, plan: BatchPlan, others: dict[int, list[int]], generator: torch.Generator
    ) -> None:
        """Put partners in the place of every second row; its turn comes in another epoch."""
        rows, copies, stored = plan.rows, plan.copies, self._recipe.stored_copies
        for place in range(1, len(rows), 2):
            row = rows[place - 1]
            choice = others.get(row, [])
            drawn = int(torch.randint(max(len(choice), 1), (1,), generator=generator))
            rows[place] = choice[drawn] if choice else row
            if not choice and stored and copies[place] == copies[place - 1]:
                copies[place] = (copies[place] + 1) % (stored + 1)

    def _triplets(self, generator: torch.Generator) -> Iterator[BatchPlan]:
        assert self._sampler is not None
        for _ in range(self.steps):
            drawn = self._sampler.sample(self._size, generator)
            # A triplet's images side by side: any even share of a batch holds whole triplets.
            rows = drawn.rows.T.reshape(-1).tolist()
            copies = self._copies(len(rows), generator)
            yield BatchPlan(rows, copies, drawn.attribute.repeat(3))

    def _copies(self, size: int, generator: torch.Generator) -> list[int]:
        copies = self._recipe.stored_copies
        return torch.randint(copies + 1, (size,), generator=generator).tolist()


def _others(dataset: Dataset, rows: NDArray[np.int64]) -> dict[int, list[int]]:
    """The other pictures of each row's item among `rows`, for rows that have any."""
    shows, items = what_they_show(dataset), dict[int, list[int]]()
    for row in rows.tolist():
        items.setdefault(int(shows[row]), []).append(row)
    return {
        row: [other for other in own if other != row]
        for own in items.values()
        for row in own
        if len(own) > 1
    }


def what_they_show(dataset: Dataset) -> NDArray[np.int64]:
    """A number for what each row of a dataset shows: its item, else the picture itself, [N]."""
    own = np.arange(len(dataset), dtype=np.int64)
    if dataset.items is None:
        return own
    shows: NDArray[np.int64] = np.where(dataset.items >= 0, len(own) + dataset.items, own)
    return shows


def check_shares(recipe: Recipe, shares: int) -> None:
    """Raise UsageError for a batch that so many processes cannot share evenly."""
    if recipe.batch_size % shares:
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be shared by {shares} processes evenly; "
            f"choose a --batch-size that is a multiple of {shares}"
        )


def epoch_seed(seed: int, epoch: int) -> int:
    """An even number; the next odd one is free for the epoch's other draws."""
    return (seed * 1_000_003 + epoch) * 2
