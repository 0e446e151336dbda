"""The training loop: epochs of batches, validation, best and last checkpoints, exact resume.

Every draw of an epoch comes from a generator seeded by (seed, epoch), and the learning rate is a
function of the step: a run resumed at an epoch's start goes on with the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.checkpoint import save_checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images.landmarks import NONE
from training.maps import MapBank
from training.models.backbones import backbone_source
from training.models.embedder import ConditionedEmbedder
from training.processes import ALONE, Processes
from training.recipe import Recipe, RunConfig
from training.report import EpochReport, Progress, TrainReport
from training.resume import run_identity, save_last
from training.sampling import BatchPlan, BatchPlans, epoch_seed, plain, what_they_show
from training.sources import CHUNK, Source
from training.step import (
    Objective,
    fixed_norm,
    lay_out,
    make_batch,
    partners,
    set_mode,
    train_step,
    tuned,
)

Validate = Callable[[MapBank, Dataset], float | None]
"""Gives the MAP (percent, higher is better) of a model on its `valid` split, if it has one."""

CALIBRATION = 1024
"""Training images that the scales of the stages are measured on."""

FITTED = 4096
"""Training images that the nuance of the whole garment is fitted on."""

WARM_UP = 50
"""Steps of the warm-up of the cosine schedule, at most a tenth of all steps."""


@dataclass(frozen=True)
class Setting:
    """Where and how a run is done; it changes nothing of what is asked for."""

    device: str = "cpu"  # `cpu`, `cuda` or `cuda:N`
    workers: int = 0  # decoding threads
    resume: bool = False  # go on after the last finished epoch
    # called after each epoch if there is a validation split; without it, or one, the last epoch is
    # the best
    validate: Validate | None = None
    # which of several training together this is; the first one validates and writes
    processes: Processes = ALONE


class Trainer:
    """Trains a model that is on its device, by the images or the stored maps of a source.

    Raises DataError for fewer than two labelled training images, UsageError for a batch that cannot
    be shared evenly.
    """

    def __init__(
        self, model: ConditionedEmbedder, source: Source, config: RunConfig, setting: Setting
    ) -> None:
        dataset, recipe = source.dataset, config.recipe
        self.model, self.source, self.config, self.setting = model, source, config, setting
        self.optimizer = build_optimizer(model, recipe)
        shares, pairs = setting.processes.count, partners(model, recipe)
        pairs = pairs or (model.wants_pairs and dataset.items is not None)
        self.plans = BatchPlans(dataset, source.rows, recipe, config.seed, shares, pairs)
        self._identity = run_identity(config, dataset, model)
        self._labels = torch.from_numpy(dataset.labels)
        self._category = torch.from_numpy(dataset.category)
        self._shows = torch.from_numpy(what_they_show(dataset))

    def prepare(self) -> None:
        """Measure on training images what then stays; for a run that begins. Raises DataError if
        none of them could be read."""
        recipe = self.config.recipe
        if self.model.config.lower_stages and fixed_norm(recipe):
            self._calibrate()
        if recipe.freeze == "all":  # else F changes while it is trained
            self._fit_garment_nuance()

    def train(self, report: TrainReport, progress: Progress) -> None:
        """Train all epochs but those that are in the report, which grows, or until the recipe's
        patience is over. Raises DataError for a loss that is not finite, ResourceError for a
        checkpoint that cannot be written."""
        model, recipe, processes = self.model, self.config.recipe, self.setting.processes
        set_mode(model, recipe)
        objective: nn.Module = Objective(model, recipe, self.source.freeze, processes)
        if processes.count > 1:
            objective = DistributedDataParallel(objective, find_unused_parameters=True)
        done = len(report.epochs)
        orders = (plan.order(processes) for plan in self.plans.after(done))
        batches = zip(self.plans.after(done), self.source.batches(orders), strict=False)
        for epoch in range(done, recipe.epochs):
            if self._waited_enough(report):
                break
            started = time.monotonic()
            progress.start_epoch(epoch + 1, recipe.epochs, self.plans.steps)
            losses = self._epoch(epoch, objective, islice(batches, self.plans.steps), progress)
            figure = self._validated() if processes.first else None
            latest = EpochReport(epoch + 1, losses, figure, time.monotonic() - started)
            report.epochs.append(latest)
            if processes.first:
                self._save_best(report)
                save_last(report, model, self.optimizer, self._identity)
            processes.wait()
            progress.end_epoch(latest)

    def _waited_enough(self, report: TrainReport) -> bool:
        """Whether the recipe's patience is over: the first process knows, all hear of it."""
        patience, waited = self.config.recipe.patience, len(report.epochs) - report.best_epoch
        if not patience:
            return False
        over = self.setting.processes.first and waited >= patience
        told = torch.tensor([over], dtype=torch.uint8, device=self.setting.device)
        return bool(self.setting.processes.gather(told).any())

    def _epoch(
        self,
        epoch: int,
        objective: nn.Module,
        batches: Iterator[tuple[BatchPlan, tuple[list[int], Tensor]]],
        progress: Progress,
    ) -> dict[str, float]:
        """One epoch, 0-based; the means of the terms of the loss."""
        recipe, steps, processes = self.config.recipe, self.plans.steps, self.setting.processes
        device, source = self.setting.device, self.source
        generator = torch.Generator().manual_seed(epoch_seed(self.config.seed, epoch) + 1)
        set_mode(self.model, recipe)
        sums: dict[str, float] = {}
        for step, (plan, read) in enumerate(batches):
            set_learning_rate(self.optimizer, recipe, epoch * steps + step, steps)
            inputs, known = lay_out(plan.order(processes).rows, *read)
            landmarks = source.landmarks(plan.order(processes))
            if landmarks is not None:
                landmarks = landmarks.masked_fill(~known[:, None, None], NONE).to(device)
            known = processes.gather(known.to(torch.uint8).to(device)).bool().cpu()
            if int(known.sum()) < 2:  # nearly all of the batch's images are unreadable
                continue
            labels, category, shows = self._labels, self._category, self._shows
            batch = make_batch(plan, inputs, known, labels, category, shows, device)
            progress_made = (epoch + step / steps) / recipe.epochs
            batch = replace(batch, landmarks=landmarks, progress=progress_made)
            losses = train_step(objective, self.optimizer, batch, generator)
            if not math.isfinite(losses["total"]):
                raise DataError(
                    f"the loss became {losses['total']} in epoch {epoch + 1}, step {step + 1}; "
                    "lower the learning rate"
                )
            sums = {k: sums.get(k, 0.0) + v for k, v in losses.items()}
            progress.step(losses)
        return {k: v / steps for k, v in sums.items()}

    def _validated(self) -> float | None:
        self.model.eval()
        if self.config.recipe.freeze != "all":
            self._fit_garment_nuance()
        if self.setting.validate is None:
            return None
        bank = self.source.validation_bank(self.model)
        return None if bank is None else self.setting.validate(bank, bank.dataset)

    def _calibrate(self) -> None:
        """Measure the mean and the variance of each channel of F, which then stay."""
        norm = self.model.standardise
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        sums = torch.zeros(2, norm.num_features, dtype=torch.float64)
        count = 0
        for trunk in self._sample(CALIBRATION):
            flat = trunk.cpu().double().transpose(0, 1).flatten(1)
            sums += torch.stack([flat.sum(1), flat.square().sum(1)])
            count += flat.shape[1]
        if count == 0:
            raise DataError(
                f"none of {min(CALIBRATION, len(self.source.rows))} training images could be read; "
                "`retrieve inspect` lists them"
            )
        mean, square = sums / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean.square()).clamp(min=1e-6))

    def _fit_garment_nuance(self) -> None:
        nuance = self.model.garment_nuance
        if not nuance.numbers:
            return
        with torch.inference_mode():
            drawn = (self.model.standardise(trunk.float()) for trunk in self._sample(FITTED))
            found = [nuance.statistics(standard) for standard in drawn]
        if found:  # else the training ends for want of readable images
            nuance.fit(torch.cat(found))

    @torch.inference_mode()
    def _sample(self, images: int) -> Iterator[Tensor]:
        """F of at most so many training images, drawn, batch by batch; none of them changed."""
        self.model.eval()
        drawn = np.random.default_rng(self.config.seed).permutation(self.source.rows)[:images]
        for _, inputs in self.source.batches(plain(drawn, CHUNK)):
            if len(inputs):  # else none of them could be read
                inputs = inputs.to(self.setting.device)
                yield self.model.trunk_from(inputs, self.source.freeze)

    def _save_best(self, report: TrainReport) -> None:
        latest, dataset = report.epochs[-1], self.source.dataset
        figure, best = latest.validation, report.best_validation
        if figure is None or best is None or figure > best:
            report.best_epoch, report.best_validation = latest.epoch, figure
            remarks = {
                "dataset": dataset.name,
                "images": len(self.plans.rows),
                "seed": self.config.seed,
                "epoch": latest.epoch,
                "validation": figure,
                "recipe": self.config.recipe.to_json(),
            }
            if source := backbone_source(self.config.model.backbone, self.config.weights):
                remarks["backbone_source"] = source
            shown, names = self.config.preprocessing, dataset.category_names
            save_checkpoint(report.out / "best", self.model, shown, names, remarks)


def build_optimizer(model: ConditionedEmbedder, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over the new layers and what of the backbone is trained.

    Each parameter group's `peak` is the learning rate that the schedule scales.
    """
    new = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    groups = [{"params": new, "lr": recipe.learning_rate, "peak": recipe.learning_rate}]
    if old := list(tuned(model, recipe).parameters()):
        rate = recipe.backbone_learning_rate
        groups.append({"params": old, "lr": rate, "peak": rate})
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, steps_per_epoch: int
) -> None:
    """Set the learning rate of step number `step` (0-based, over all epochs).

    A pure function of the step, so that a resumed run needs no scheduler state.
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "decay":
        factor = recipe.decay ** (step // max(1, steps_per_epoch))
    else:
        warm_up = max(1, min(WARM_UP, total // 10))
        factor = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / total))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
