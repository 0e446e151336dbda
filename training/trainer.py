"""The training loop: epochs of batches, validation, best and last checkpoints, exact resume.

Every draw of an epoch comes from a generator seeded by (seed, epoch), and the learning rate is a
function of the step: a run resumed at an epoch's start goes on with the same numbers.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from training.augmentation import augment, drop_channels
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.map_bank import MapBank
from training.models.backbones import read_weights
from training.models.m2fashion import M2Fashion
from training.objective import batch_losses
from training.optimisation import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.sources import Source

Validate = Callable[[MapBank, Dataset], float]
"""Gives the MAP (percent, higher is better) of a model on its `valid` split."""

STATE, OPTIMIZER = "state.json", "optimizer.safetensors"


@dataclass
class EpochReport:
    """One epoch: its number (1-based), mean losses, validation MAP in percent, seconds."""

    epoch: int
    losses: dict[str, float]
    validation: float | None
    seconds: float


@dataclass
class TrainReport:
    """A finished run: the epochs, the best of them and where the checkpoints are."""

    out: Path
    epochs: list[EpochReport] = field(default_factory=list)
    best_epoch: int = 0
    best_validation: float | None = None


class Progress:
    """What the trainer tells a caller; every method may be overridden."""

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """An epoch begins, of `steps` batches."""

    def step(self, losses: dict[str, float]) -> None:
        """A batch is done."""

    def end_epoch(self, report: EpochReport) -> None:
        """An epoch and its validation are done."""


def train(
    model: M2Fashion,
    dataset: Dataset,
    source: Source,
    recipe: Recipe,
    preprocessing: Preprocessing,
    out: Path,
    seed: int,
    device: str,
    validate: Validate,
    progress: Progress,
    resume: bool = False,
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
        device: `cpu` or `cuda`.
        validate: called after each epoch if there is a validation split.
        progress: told of every step.
        resume: go on from `out/last`, which must be of the same recipe and seed.

    Raises:
        DataError: no training images, a loss that is not finite, or nothing fit to resume.
    """
    rows = source.rows
    if len(rows) < 2:
        raise DataError(f"{dataset.name}: the train split has {len(rows)} readable images")
    optimizer = build_optimizer(model, recipe)
    report = TrainReport(out)
    if resume:
        _restore(out / "last", model, optimizer, recipe, seed, report)
    size = min(recipe.batch_size, len(rows))
    steps = len(rows) // size
    labels = torch.from_numpy(dataset.labels)
    category = torch.from_numpy(dataset.category)
    batches = source.batches(_orders(rows, size, seed, len(report.epochs), recipe.epochs))
    for epoch in range(len(report.epochs), recipe.epochs):
        started = time.monotonic()
        progress.start_epoch(epoch + 1, recipe.epochs, steps)
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch) + 1)
        _set_mode(model, recipe)
        sums: dict[str, float] = {}
        for step in range(steps):
            set_learning_rate(optimizer, recipe, epoch * steps + step, steps)
            batch_rows, inputs = next(batches)
            if len(batch_rows) < 2:  # nearly all of the batch's images are unreadable
                continue
            losses = train_step(
                model,
                optimizer,
                inputs.to(device),
                labels[batch_rows].float().to(device),
                category[batch_rows].to(device),
                recipe,
                source.frozen,
                generator,
            )
            if not math.isfinite(losses["total"]):
                raise DataError(
                    f"the loss became {losses['total']} in epoch {epoch + 1}, step {step + 1}; "
                    "lower the learning rate"
                )
            sums = {k: sums.get(k, 0.0) + v for k, v in losses.items()}
            progress.step(losses)
        model.eval()
        bank = source.validation_bank(model)
        figure = None if bank is None else validate(*bank)
        epoch_report = EpochReport(
            epoch + 1,
            {k: v / steps for k, v in sums.items()},
            figure,
            time.monotonic() - started,
        )
        report.epochs.append(epoch_report)
        _save(model, optimizer, dataset, preprocessing, recipe, seed, len(rows), report)
        progress.end_epoch(epoch_report)
    return report


def train_step(
    model: M2Fashion,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    category: Tensor,
    recipe: Recipe,
    frozen: bool,
    generator: torch.Generator,
) -> dict[str, float]:
    """One step: every image once through the backbone, many conditions on its map.

    Args:
        model: in training mode.
        optimizer: over its parameters.
        inputs: normalised images [B, 3, S, S], or F [B, channels, H, W] if `frozen`.
        labels: label states [B, K] float.
        category: [B] int64, -1 unknown.
        recipe: options.
        frozen: whether `inputs` are stored maps.
        generator: source of all draws.

    Returns:
        The terms of the loss.
    """
    inputs = augment(inputs, recipe.flip, recipe.crop, generator)
    trunk = inputs if frozen else model.trunk(inputs)
    maps = model.reduce(drop_channels(trunk, recipe.drop_maps, generator))
    losses = batch_losses(model, maps, labels, category, recipe, generator)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses.numbers()


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) * 2


def _orders(
    rows: NDArray[np.int64], size: int, seed: int, first: int, epochs: int
) -> Iterator[list[int]]:
    """Rows of every batch of every epoch from `first` on; the remainder of an epoch is left out."""
    for epoch in range(first, epochs):
        generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        for start in range(0, len(rows) // size * size, size):
            yield order[start : start + size].tolist()


def _set_mode(model: M2Fashion, recipe: Recipe) -> None:
    model.train()
    if recipe.freeze_backbone:
        model.backbone.eval().requires_grad_(False)
    elif recipe.freeze_norm:
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _save(
    model: M2Fashion,
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
    last = report.out / "last"
    # The state is removed first and written last: a kill in between leaves nothing to resume
    # wrongly from.
    (last / STATE).unlink(missing_ok=True)
    save_checkpoint(last, model, preprocessing, dataset.category_names, remarks)
    save_file(optimizer_tensors(optimizer), last / OPTIMIZER)
    state = {
        "recipe": recipe.to_json(),
        "seed": seed,
        "best_epoch": report.best_epoch,
        "best_validation": report.best_validation,
        "epochs": [vars(e) for e in report.epochs],
    }
    temporary = last / (STATE + ".tmp")
    temporary.write_text(json.dumps(state, indent=1))
    os.replace(temporary, last / STATE)


def _restore(
    last: Path,
    model: M2Fashion,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    seed: int,
    report: TrainReport,
) -> None:
    try:
        state = json.loads((last / STATE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"nothing to resume in {last}: {error}") from error
    if state["recipe"] != recipe.to_json() or state["seed"] != seed:
        theirs = {**state["recipe"], "seed": state["seed"]}
        ours = {**recipe.to_json(), "seed": seed}
        differing = [
            f"{k}: {theirs.get(k)} there, {v} here" for k, v in ours.items() if theirs.get(k) != v
        ]
        raise DataError(f"{last} is of another run ({'; '.join(differing)}); drop --resume")
    model.load_state_dict(load_checkpoint(last).model.state_dict())
    restore_optimizer(optimizer, read_weights(last / OPTIMIZER))
    report.best_epoch, report.best_validation = state["best_epoch"], state["best_validation"]
    report.epochs = [EpochReport(**e) for e in state["epochs"]]
