"""Optimizer and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from training.recipe import Recipe

WARM_UP = 50
"""Steps of the warm-up of the cosine schedule, at most a tenth of all steps."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over the new layers and, if trained, the backbone.

    Each parameter group's `peak` is the learning rate that the schedule scales.
    """
    rates = {False: recipe.learning_rate}
    if not recipe.freeze_backbone:
        rates[True] = recipe.backbone_learning_rate
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if n.startswith("backbone.") == old],
            "lr": rate,
            "peak": rate,
        }
        for old, rate in rates.items()
    ]
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
