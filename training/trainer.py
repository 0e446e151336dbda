"""The training loop: epochs of batches, validation, best and last checkpoints, exact resume.

Every draw of an epoch comes from a generator seeded by (seed, epoch), and the learning rate is a
function of the step: a run resumed at an epoch's start goes on with the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.batch_plans import BatchPlans, Order, epoch_seed, what_they_show
from training.checkpoint import save_checkpoint
from training.datasets.dataset import Dataset
from training.distributed import ALONE, Processes
from training.errors import DataError
from training.map_bank import MapBank
from training.models.conditioned import ConditionedEmbedder
from training.optimisation import build_optimizer, restore_optimizer, set_learning_rate
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.run_folder import Unfinished, save_last
from training.sources import Source
from training.step import (
    Objective,
    fixed_norm,
    lay_out,
    make_batch,
    partners,
    set_mode,
    train_step,
)
from training.train_report import EpochReport, Progress, TrainReport

Validate = Callable[[MapBank, Dataset], float | None]
"""Gives the MAP (percent, higher is better) of a model on its `valid` split, if it has one."""


def train(
    model: ConditionedEmbedder,
    dataset: Dataset,
    source: Source,
    recipe: Recipe,
    preprocessing: Preprocessing,
    out: Path,
    seed: int,
    device: str,
    validate: Validate,
    progress: Progress,
    unfinished: Unfinished | None = None,
    processes: Processes = ALONE,
) -> TrainReport:
    """Train a model and write `out/best` and `out/last`.

    Args:
        model: already on `device`, weights as the run starts.
        dataset: labels of the rows that `source` gives.
        source: the training images or their stored maps, and the validation bank.
        recipe: options.
        preprocessing: goes into the checkpoint.
        out: the run's folder.
        seed: of every draw.
        device: `cpu`, `cuda` or `cuda:N`.
        validate: called after each epoch if there is a validation split.
        progress: told of every step.
        unfinished: go on from there; it is of the same run, see `check_same_run`.
        processes: which share of every batch is this process'; the first one validates and writes.

    Raises:
        DataError: no training images, a loss that is not finite, or a damaged optimizer state.
        UsageError: a batch cannot be shared evenly.
    """
    rows = source.rows
    if len(rows) < 2:
        raise DataError(f"{dataset.name}: the train split has {len(rows)} readable images")
    optimizer = build_optimizer(model, recipe)
    report = TrainReport(out)
    if unfinished is not None:
        model.load_state_dict(unfinished.checkpoint.model.state_dict())
        restore_optimizer(optimizer, unfinished.optimizer)
        unfinished.continued(report)
    elif model.config.lower_stages and fixed_norm(recipe):
        _calibrate(model, source, seed, device)
    if unfinished is None and recipe.freeze_backbone:  # else F changes while it is trained
        _fit_garment_nuance(model, source, seed, device)
    pairs = partners(model, recipe)
    plans = BatchPlans(dataset, rows, recipe, seed, processes.count, pairs)
    shows = torch.from_numpy(what_they_show(dataset))
    labels = torch.from_numpy(dataset.labels)
    category = torch.from_numpy(dataset.category)
    objective: nn.Module = Objective(model, recipe, source.frozen, processes)
    done = len(report.epochs)
    set_mode(model, recipe)
    if processes.count > 1:
        objective = DistributedDataParallel(objective, find_unused_parameters=True)
    batches = source.batches(plan.order(processes) for plan in plans.after(done))
    coming = plans.after(done)
    for epoch in range(done, recipe.epochs):
        started = time.monotonic()
        progress.start_epoch(epoch + 1, recipe.epochs, plans.steps)
        generator = torch.Generator().manual_seed(epoch_seed(seed, epoch) + 1)
        set_mode(model, recipe)
        sums: dict[str, float] = {}
        for step in range(plans.steps):
            set_learning_rate(optimizer, recipe, epoch * plans.steps + step, plans.steps)
            plan = next(coming)
            inputs, known = lay_out(plan.rows[plan.own(processes)], *next(batches))
            known = processes.gather(known.to(torch.uint8).to(device)).bool().cpu()
            if int(known.sum()) < 2:  # nearly all of the batch's images are unreadable
                continue
            batch = make_batch(plan, inputs, known, labels, category, shows, device)
            losses = train_step(objective, optimizer, batch, generator)
            if not math.isfinite(losses["total"]):
                raise DataError(
                    f"the loss became {losses['total']} in epoch {epoch + 1}, step {step + 1}; "
                    "lower the learning rate"
                )
            sums = {k: sums.get(k, 0.0) + v for k, v in losses.items()}
            progress.step(losses)
        model.eval()
        figure = None
        if processes.first:
            if not recipe.freeze_backbone:
                _fit_garment_nuance(model, source, seed, device)
            bank = source.validation_bank(model)
            figure = None if bank is None else validate(*bank)
        epoch_report = EpochReport(
            epoch + 1,
            {k: v / plans.steps for k, v in sums.items()},
            figure,
            time.monotonic() - started,
        )
        report.epochs.append(epoch_report)
        if processes.first:
            _save(model, optimizer, dataset, preprocessing, recipe, seed, len(rows), report)
        processes.wait()
        progress.end_epoch(epoch_report)
    return report


CALIBRATION = 1024
"""Training images that the scales of the stages are measured on."""


def _calibrate(model: ConditionedEmbedder, source: Source, seed: int, device: str) -> None:
    """Measure the mean and the variance of each channel of F, which then stay."""
    norm = model.standardise
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    model.eval()
    sums = torch.zeros(2, norm.num_features, dtype=torch.float64)
    count = 0
    with torch.inference_mode():
        for inputs in _sample(source, seed, CALIBRATION):
            trunk = inputs if source.frozen else model.trunk(inputs.to(device)).cpu()
            flat = trunk.double().transpose(0, 1).flatten(1)
            sums += torch.stack([flat.sum(1), flat.square().sum(1)])
            count += flat.shape[1]
    if count == 0:
        raise DataError(
            f"none of {min(CALIBRATION, len(source.rows))} training images could be read; "
            "`retrieve inspect` lists them"
        )
    mean = sums[0] / count
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((sums[1] / count - mean.square()).clamp(min=1e-6))


FITTED = 4096
"""Training images that the nuance of the whole garment is fitted on."""


def _fit_garment_nuance(model: ConditionedEmbedder, source: Source, seed: int, device: str) -> None:
    if not model.garment_nuance.numbers:
        return
    model.eval()
    found = []
    with torch.inference_mode():
        for inputs in _sample(source, seed, FITTED):
            trunk = inputs.to(device) if source.frozen else model.trunk(inputs.to(device))
            found.append(model.garment_nuance.statistics(model.standardise(trunk.float())))
    if found:  # else the training ends for want of readable images
        model.garment_nuance.fit(torch.cat(found))


def _sample(source: Source, seed: int, images: int) -> Iterator[Tensor]:
    """Inputs of at most so many training images, drawn, batch by batch; none of them changed."""
    order = np.random.default_rng(seed).permutation(source.rows)[:images]
    parts = [order[i : i + 128].tolist() for i in range(0, len(order), 128)]
    for _, inputs in source.batches(Order(part, [0] * len(part)) for part in parts):
        if len(inputs):  # else none of them could be read
            yield inputs


def _save(
    model: ConditionedEmbedder,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    preprocessing: Preprocessing,
    recipe: Recipe,
    seed: int,
    images: int,
    report: TrainReport,
) -> None:
    latest = report.epochs[-1]
    remarks: dict[str, Any] = {
        "dataset": dataset.name,
        "images": images,
        "seed": seed,
        "epoch": latest.epoch,
        "validation": latest.validation,
        "recipe": recipe.to_json(),
    }
    better = report.best_validation is None or (
        latest.validation is not None and latest.validation > report.best_validation
    )
    if latest.validation is None or better:
        report.best_epoch, report.best_validation = latest.epoch, latest.validation
        save_checkpoint(report.out / "best", model, preprocessing, dataset.category_names, remarks)
    save_last(report, model, optimizer, dataset, preprocessing, recipe, seed, remarks)
