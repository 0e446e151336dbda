"""A model on a GPU: the backbone in bfloat16 and, if it pays, compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from indexer.encode import Forward, ModelOutput, output_of
from training.models.conditioned import ConditionedEmbedder
from training.precision import autocast

COMPILE_FROM = 100_000
"""Images from which compiling, which takes about a minute, is thought to pay."""


def gpu_forward(
    model: ConditionedEmbedder,
    size: int,
    precision: str,
    compiled: bool,
    say: Callable[[str], None],
) -> Forward:
    """As `torch_forward`, for the device that the model is on.

    The reduction, the keys and the heads compute in float32 whatever the precision: they are a
    few per cent of the work, and what is stored comes from them.

    Args:
        model: in channels-last order.
        size: S, side of its images in pixels.
        precision: of the backbone, `float32` or `bfloat16`.
        compiled: compile the backbone; where that fails it runs as it is.
        say: is told then.
    """
    device = str(next(model.parameters()).device)
    trunk: Callable[[Tensor], Tensor] = model.trunk
    if compiled:
        trunk = _compiled(model, size, precision, device, say)

    def forward(images: Tensor) -> ModelOutput:
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(precision, device):
            below = trunk(images)
        return output_of(model, below.float())

    return forward


def _compiled(
    model: ConditionedEmbedder,
    size: int,
    precision: str,
    device: str,
    say: Callable[[str], None],
) -> Callable[[Tensor], Tensor]:
    """The compiled backbone, tried out; the plain one if that fails."""
    images = torch.zeros(2, 3, size, size, device=device)
    try:
        trunk = torch.compile(model.trunk, dynamic=True)  # the last batch of a shard is smaller
        with torch.inference_mode(), autocast(precision, device):
            trunk(images.contiguous(memory_format=torch.channels_last))
    except Exception as error:  # the compiler's and its compilers' have no common class but this
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"the backbone cannot be compiled ({reason}): encoding without")
        return model.trunk
    return trunk
