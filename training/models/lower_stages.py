"""Maps of the stages below the last one, and of the pixels, beside the last stage's.

Not in the paper. A backbone trained to tell objects apart forgets colour on its way up: on colour
its last stages do worse than random features. What its lower stages saw is kept: the mean and
deviation of the pixels in each cell, and every stage's map averaged over the cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.backbones import backbone_channels
from training.models.resnet50v2 import ResNet50V2

PIXELS = 6
"""Channels of the pixels' mean and deviation."""

FLAT = 0.01
"""Least deviation, about half a grey level: below it float32 and other runtimes see noise."""


def lower_stages(stage: str) -> tuple[str, ...]:
    """Names of the stages below `stage`, lowest first."""
    return tuple(f"layer{number}" for number in range(1, int(stage.removeprefix("layer"))))


def lower_channels(backbone: str, stage: str) -> int:
    """Channels that `with_lower_stages` puts before the last stage's own."""
    return PIXELS + sum(backbone_channels(backbone, name) for name in lower_stages(stage))


def with_lower_stages(backbone: nn.Module, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Pixels and all stages, averaged over a grid of cells.

    Args:
        backbone: of `build_backbone`.
        images: normalised [B, 3, S, S].
        grid: (H, W).

    Returns:
        [B, lower channels + channels of the last stage, H, W].
    """
    mean = F.adaptive_avg_pool2d(images, grid)
    square = F.adaptive_avg_pool2d(images.square(), grid)
    deviation = (square - mean.square()).clamp(min=FLAT**2).sqrt()
    maps = [F.adaptive_avg_pool2d(x, grid) for x in _stages(backbone, images)]
    return torch.cat([mean, deviation, *(m.to(mean.dtype) for m in maps)], 1)


def _stages(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    if isinstance(backbone, ResNet50V2):
        return backbone.stages(images)
    found, x = [], images
    for name, module in backbone.named_children():
        x = module(x)
        if name.startswith("layer"):
            found.append(x)
    return found
