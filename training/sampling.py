"""What a run draws: the images of each batch, masks of labels, value conditions.

Which images a batch holds is a pure function of the seed and the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.processes import Processes
from training.recipe import Recipe
from training.schema import Schema

_Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Triplets:
    """M triplets of images."""

    rows: _Numbers  # anchor, positive and negative, dataset rows [3, M] int64
    attribute: _Numbers  # number of the attribute they are compared in, [M] int64
    value: _Numbers  # flat index of the value that anchor and positive have, [M] int64


class TripletSampler:
    """Draws from label states [N, K] int8 of distinct dataset rows [R] int64, by look-ups in lists
    that are made once.

    A value can be drawn when at least two images have it and at least one is labelled in its
    attribute (has some value of it, or is known to have none) and is known to lack this one. An
    attribute without such a value is left out; without any, DataError is raised.
    """

    def __init__(self, labels: NDArray[np.int8], schema: Schema, rows: _Numbers) -> None:
        states = np.ascontiguousarray(labels[rows].T)  # [K, R]
        values: list[int] = []
        having: list[_Numbers] = []
        gaps: list[_Numbers] = []
        labelled: list[_Numbers] = []
        told = schema.labelled(labels[rows])
        for attribute in range(len(schema.attributes)):
            where = schema.slice_of(attribute)
            known = np.flatnonzero(told[:, attribute])
            labelled.append(rows[known])
            for value in range(where.start, where.stop):
                has = np.flatnonzero(states[value] == 1)
                excluded = np.flatnonzero(states[value, known] != -1)
                if len(has) >= 2 and len(excluded) < len(known):
                    values.append(value)
                    having.append(rows[has])
                    gaps.append(excluded - np.arange(len(excluded)))
        if not values:
            raise DataError(
                f"no triplet can be drawn from {len(rows)} images: no value is held by two of "
                "them while a third, labelled in the same attribute, lacks it"
            )
        self._value = np.array(values, dtype=np.int64)
        self._attribute = schema.attribute_of[self._value]
        self._drawable, self._first, self._values = np.unique(
            self._attribute, return_index=True, return_counts=True
        )
        self._having, self._having_start, self._having_count = _flat(having)
        self._labelled, starts, counts = _flat(labelled)
        self._labelled_start = starts[self._attribute]
        gap, self._gap_start, gap_count = _flat(gaps)
        self._negatives = counts[self._attribute] - gap_count
        # One ascending list for one search over all values: each value's own is moved past the
        # one before it.
        self._span = len(rows) + 1
        self._gap = gap + np.repeat(np.arange(len(values)), gap_count) * self._span

    def sample(self, count: int, generator: torch.Generator) -> Triplets:
        """Draw `count` triplets, with replacement."""
        draws = torch.rand(5, count, dtype=torch.float64, generator=generator).numpy()
        number = _draw(draws[0], len(self._drawable))
        value = self._first[number] + _draw(draws[1], self._values[number])
        start, held = self._having_start[value], self._having_count[value]
        anchor = _draw(draws[2], held)
        positive = _draw(draws[3], held - 1)
        positive += positive >= anchor  # any image that has the value but the anchor
        rows = [self._having[start + anchor], self._having[start + positive]]
        rows.append(self._negative(value, _draw(draws[4], self._negatives[value])))
        return Triplets(np.stack(rows), self._attribute[value], self._value[value])

    def _negative(self, value: _Numbers, rank: _Numbers) -> _Numbers:
        """The rank-th image that is labelled in the value's attribute and lacks the value.

        Lists of them would be nearly all images for each of a thousand values. The few that are
        excluded are listed instead: the rank-th of the others lies as many places further on as
        there are excluded places e_i with e_i - i <= rank.
        """
        passed = np.searchsorted(self._gap, rank + value * self._span, side="right")
        place = rank + passed - self._gap_start[value]
        chosen: _Numbers = self._labelled[self._labelled_start[value] + place]
        return chosen


def _flat(lists: list[_Numbers]) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Lists end to end, and where each starts and how long it is."""
    counts = np.array([len(one) for one in lists], dtype=np.int64)
    return np.concatenate(lists), np.cumsum(counts) - counts, counts


def _draw(uniform: NDArray[np.float64], choices: _Numbers | int) -> _Numbers:
    """Uniform draws in [0, 1) to whole numbers 0..choices-1."""
    return (uniform * choices).astype(np.int64)


@dataclass(frozen=True)
class BatchPlan:
    """The images of one batch, or of a share of it."""

    # dataset rows [B]; with sampled triplets the three of one, then the three of the next
    rows: list[int]
    copies: list[int]  # which stored copy of each image, 1-based; 0 is the image itself [B]
    # with sampled triplets, the attribute of each row's triplet [B] int64
    attribute: NDArray[np.int64] | None = None

    def order(self, processes: Processes) -> BatchPlan:
        """What a process is to read of it."""
        own = processes.share(len(self.rows))
        return BatchPlan(self.rows[own], self.copies[own])


def plain(rows: NDArray[np.int64], size: int) -> Iterator[BatchPlan]:
    """Rows as they are, `size` at a time."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size].tolist()
        yield BatchPlan(part, [0] * len(part))


TURNS = 6
"""Times that an epoch shows a labelled image at most, where others of its split have no label."""


class BatchPlans:
    """The batches of a run, of the readable rows of the train split [M] int64.

    They hold images with a label or category alone. In the place of the others these come again, up
    to `TURNS` times, so that an epoch over few of them still has some batches.

    With `partners`, half of each batch are partners of the other half, for nuance: another picture
    of the same item, drawn, else another copy of the picture.

    Raises:
        DataError: fewer than two images have a label.
        UsageError: so many processes as there are `shares` cannot share a batch evenly.
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
        known = dataset.labels[rows].any(axis=1) | (dataset.category[rows] >= 0)
        shown, rows = min(len(rows), TURNS * int(known.sum())), rows[known]
        if len(rows) < 2:
            found = f"the train split has {len(rows)} readable images with a label"
            raise DataError(f"{dataset.name}: {found}; two are needed")
        self._others = _others(dataset, rows) if partners else None
        self.rows = rows
        """Those that are drawn, in the order given."""
        self._recipe, self._seed = recipe, seed
        self._sampler: TripletSampler | None = None
        self._size = recipe.batch_size
        if recipe.sampling == "triplets":
            self._sampler = TripletSampler(dataset.labels, dataset.schema, rows)
            self.steps = max(1, recipe.triplets_per_epoch // self._size)
        else:
            self._size = min(self._size, len(rows))
            if shares > 1:  # a small split's last images are left out
                self._size -= self._size % shares
            self.steps = shown // max(1, self._size)
        if self._size < shares:
            raise UsageError(
                f"{shares} processes cannot share {len(rows)} training images; start fewer"
            )

    def after(self, epochs: int) -> Iterator[BatchPlan]:
        """The batches of all epochs but the first `epochs`."""
        for epoch in range(epochs, self._recipe.epochs):
            generator = torch.Generator().manual_seed(epoch_seed(self._seed, epoch))
            if self._sampler is None:
                yield from self._orders(generator)
                continue
            for _ in range(self.steps):
                drawn = self._sampler.sample(self._size, generator)
                # A triplet's images side by side: any even share of a batch holds whole triplets.
                rows = drawn.rows.T.reshape(-1).tolist()
                copies = self._copies(len(rows), generator)
                yield BatchPlan(rows, copies, drawn.attribute.repeat(3))

    def _orders(self, generator: torch.Generator) -> Iterator[BatchPlan]:
        count, images = len(self.rows), self.steps * self._size
        turns = [torch.randperm(count, generator=generator) for _ in range(0, images, count)]
        order = self.rows[torch.cat(turns).numpy()]
        for start in range(0, images, self._size):
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
            choice = others.get(rows[place - 1], [rows[place - 1]])
            rows[place] = choice[int(torch.randint(len(choice), (1,), generator=generator))]
            if rows[place] == rows[place - 1] and stored and copies[place] == copies[place - 1]:
                copies[place] = (copies[place] + 1) % (stored + 1)

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


MIN_UNKNOWN = 0.25
"""At least this share of the labels is hidden by a mask (C-Tran, CVPR 2021)."""

UNWANTED_SHARE = 0.15
"""Share of the value conditions that also name a value that the image lacks."""


def mask_labels(labels: Tensor, schema: Schema, generator: torch.Generator) -> Tensor:
    """Hide labels: half of the images lose whole attributes, half lose single values.

    Value-wise hiding alone would let an exclusive value be read off its known siblings. How much
    is hidden is uniform in [0.25, 1] of the labels, drawn for each image.
    """
    batch = labels.shape[0]
    owner = torch.from_numpy(schema.attribute_of)
    hidden = MIN_UNKNOWN + (1 - MIN_UNKNOWN) * torch.rand(batch, 1, generator=generator)
    by_value = _hide(torch.rand(batch, schema.size, generator=generator), hidden)
    groups = torch.rand(batch, len(schema.attributes), generator=generator)
    by_group = _hide(groups, hidden)[:, owner]
    whole = torch.rand(batch, 1, generator=generator) < 0.5
    mask = torch.where(whole, by_group, by_value).to(labels.device)
    return labels.masked_fill(mask, 0)


def _hide(draws: Tensor, share: Tensor) -> Tensor:
    """The `share` of each row with the smallest draws, rounded up: [B, M] bool."""
    ranks = draws.argsort(1).argsort(1)
    return ranks < torch.ceil(share * draws.shape[1])


def sample_value_conditions(
    labels: Tensor, schema: Schema, count: int, generator: torch.Generator, max_values: int = 3
) -> Tensor:
    """Draw value conditions that at least one image of the batch fits: [M, K] float, +1 wanted, -1
    unwanted.

    An image is drawn, then how many values, then that many of its attributes, uniformly, and one
    of its values in each: so that combinations that exist are asked for. Fewer than `count` come
    where images drawn have no positive labels.
    """
    cpu = labels.cpu()
    rows = []
    for _ in range(count):
        image = int(torch.randint(cpu.shape[0], (1,), generator=generator))
        states = torch.zeros(schema.size)
        positive = torch.nonzero(cpu[image] == 1).flatten()
        if len(positive) == 0:
            continue
        wanted = int(torch.randint(1, max_values + 1, (1,), generator=generator))
        first: dict[int, int] = {}  # value of each attribute
        for value in positive[torch.randperm(len(positive), generator=generator)].tolist():
            first.setdefault(int(schema.attribute_of[value]), value)
        states[list(first.values())[:wanted]] = 1
        if float(torch.rand(1, generator=generator)) < UNWANTED_SHARE:
            lacking = torch.nonzero((cpu[image] == -1) & (states == 0)).flatten()
            if len(lacking):
                pick = int(torch.randint(len(lacking), (1,), generator=generator))
                states[lacking[pick]] = -1
        rows.append(states)
    stacked = torch.stack(rows) if rows else torch.zeros(0, schema.size)
    return stacked.to(labels.device)


def fits(labels: Tensor, conditions: Tensor) -> Tensor:
    """Whether images, label states [B, K], satisfy value conditions [M, K]: [B, M] int8, 1 all
    named states agree, 0 at least one is known to disagree, -1 otherwise."""
    known = labels.float()
    named = conditions.float().abs().sum(1)
    agreement = known @ conditions.float().T  # agreeing minus disagreeing
    decided = known.abs() @ conditions.float().abs().T  # agreeing plus disagreeing
    out = torch.full(agreement.shape, -1, dtype=torch.int8, device=labels.device)
    out[decided > agreement] = 0
    out[agreement == named] = 1
    return out
