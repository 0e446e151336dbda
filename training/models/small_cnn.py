"""A small plain convolutional network, for the demo and for tests: learns from scratch in minutes.

Stages have the strides of a ResNet's (4, 8, 16), so that it can stand in for one. Two further input
channels say where a pixel is (CoordConv, Liu et al., NeurIPS 2018): so few layers see too little of
the picture at once to tell. It has no pretrained weights and is no backbone for photographs.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

STAGES = {
    "layer1": ((5, 24, 2), (24, 48, 2)),
    "layer2": ((48, 96, 2),),
    "layer3": ((96, 128, 1), (128, 128, 2)),
}
"""Input channels, output channels and stride of the 3x3 convolutions of each stage."""


class Coordinates(nn.Module):
    """Append the coordinates of each pixel, from -1 to 1: [B, 3, H, W] -> [B, 5, H, W]."""

    def forward(self, images: Tensor) -> Tensor:
        """x, then y, after the image's own channels."""
        batch, _, height, width = images.shape
        x = torch.linspace(-1, 1, width, dtype=images.dtype, device=images.device)
        y = torch.linspace(-1, 1, height, dtype=images.dtype, device=images.device)
        grid = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)])
        return torch.cat([images, grid.unsqueeze(0).expand(batch, -1, -1, -1)], 1)


def small_cnn(stage: str) -> nn.Sequential:
    """The network up to `stage`: [B, 3, S, S] -> [B, channels, S / stride, S / stride]."""
    stages: OrderedDict[str, nn.Module] = OrderedDict(coordinates=Coordinates())
    for name, convolutions in STAGES.items():
        layers: list[nn.Module] = []
        for inputs, outputs, stride in convolutions:
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        stages[name] = nn.Sequential(*layers)
        if name == stage:
            break
    return nn.Sequential(stages)
