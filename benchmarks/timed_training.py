"""Training by the clock: steps as `train` makes them, without validation and checkpoints."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.compared_triplets import TripletCount, batch_pairs, count_triplets
from training.batch_plans import BatchPlan, BatchPlans, what_they_show
from training.datasets.dataset import Dataset
from training.distributed import ALONE
from training.errors import DataError
from training.models.conditioned import ConditionedEmbedder
from training.recipe import Recipe
from training.sources import Source
from training.step import Objective, make_batch, partners, set_mode, train_step
from training.trainer import build_optimizer


@dataclass(frozen=True)
class Rate:
    """One measurement, a second: images into the network (a triplet's three count as three), and
    triplets as `TripletCount` counts them."""

    images: float
    anchors: float
    compared: float


class Training:
    """A model that is being trained in one way, a step at a time, as `train` does it.

    Args:
        model: on `device`; trained in place.
        dataset: labels of the rows that `source` gives.
        source: images or stored maps, all of them readable.
        recipe: `sampling` decides the way.
        seed: of every draw.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        DataError: too few readable images, or no triplet can be drawn from them.
    """

    def __init__(
        self,
        model: ConditionedEmbedder,
        dataset: Dataset,
        source: Source,
        recipe: Recipe,
        seed: int,
        device: str,
    ) -> None:
        if len(source.rows) < 2:
            raise DataError(
                f"{dataset.name}: {len(source.rows)} readable images to train on, 2 are needed; "
                "`retrieve inspect` lists the broken ones"
            )
        self.model = model
        self.recipe = recipe
        self._labels = torch.from_numpy(dataset.labels)
        self._category = torch.from_numpy(dataset.category)
        self._shows = torch.from_numpy(what_they_show(dataset))
        self._device = device
        # The scales of the stages stay as made: they do not change the speed.
        set_mode(model, recipe)
        self._objective = Objective(model, recipe, source.frozen)
        self._optimizer = build_optimizer(model, recipe)
        self._generator = torch.Generator().manual_seed(seed)
        plans = BatchPlans(dataset, source.rows, recipe, seed, partners=partners(model, recipe))
        self._coming = plans.after(0)
        self._inputs = source.batches(plan.order(ALONE) for plan in plans.after(0))

    def step(self) -> tuple[BatchPlan, Tensor]:
        """Train on the next batch; the batch, and the generator's state before it."""
        before = self._generator.get_state()
        plan = next(self._coming)
        _, inputs = next(self._inputs)
        known = torch.ones(len(plan.rows), dtype=torch.bool)
        batch = make_batch(
            plan, inputs, known, self._labels, self._category, self._shows, self._device
        )
        train_step(self._objective, self._optimizer, batch, self._generator)  # waits for a GPU
        return plan, before

    def run(self, seconds: float) -> Rate:
        """Train for at least `seconds` and at least one step; counting is outside the time."""
        steps = []
        started = time.perf_counter()
        while True:
            steps.append(self.step())
            passed = time.perf_counter() - started
            if passed >= seconds:
                break
        counts = [self.count(plan, before) for plan, before in steps]
        return Rate(
            sum(len(plan.rows) for plan, _ in steps) / passed,
            sum(count.anchors for count in counts) / passed,
            sum(count.compared for count in counts) / passed,
        )

    def count(self, plan: BatchPlan, before: Tensor) -> TripletCount:
        """The triplets that a step compared, from what `step` gave."""
        if plan.attribute is not None:
            return TripletCount(len(plan.rows) // 3, len(plan.rows) // 3)
        generator = torch.Generator()
        generator.set_state(before)
        labels = self._labels[plan.rows].float().to(self._device)
        pairs = batch_pairs(self.model, labels, self.recipe, generator)
        return count_triplets(pairs, self.recipe.positives, generator)
