"""Optimizer, learning-rate schedule, and the optimizer's state without pickle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.errors import DataError
from training.recipe import Recipe

WARM_UP = 50
"""Steps of the warm-up of the cosine schedule, at most a tenth of all steps."""

_NAMES: dict[type, set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
"""What each optimizer notes of a parameter."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, over the new layers and, if trained, the backbone.

    Each parameter group's `peak` is the learning rate that the schedule scales.
    """
    new = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
    groups = [{"params": new, "lr": recipe.learning_rate, "peak": recipe.learning_rate}]
    if not recipe.freeze_backbone:
        rate = recipe.backbone_learning_rate
        old = [p for n, p in model.named_parameters() if n.startswith("backbone.")]
        groups.append({"params": old, "lr": rate, "peak": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay)
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


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `<parameter number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, into an optimizer of the same parameters.

    Raises:
        DataError: the tensors are not of such an optimizer.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters):
            raise DataError(f"the state of the optimizer is damaged: it has no parameter {key!r}")
        like = parameters[int(number)]
        if name != "step":
            if tensor.shape != like.shape:
                raise DataError(
                    f"the state of the optimizer is damaged: {key!r} has shape "
                    f"{tuple(tensor.shape)}, its parameter {tuple(like.shape)}"
                )
            # Laid out in memory as its parameter: the fused kernels go by addresses, not indices.
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(number), {})[name] = tensor
    names = _NAMES[type(optimizer)]
    for place, entries in state.items():
        if set(entries) != names:
            raise DataError(
                f"the state of the optimizer is damaged: parameter {place} has "
                f"{', '.join(sorted(entries))}, not {', '.join(sorted(names))}"
            )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
