"""A small plain convolutional network, for the demo and for tests: learns from scratch in minutes.

Stages have the strides of a ResNet's (4, 8, 16), so that it can stand in for one. It has no
pretrained weights and is no backbone for photographs.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

STAGES = {
    "layer1": ((3, 24, 2), (24, 48, 2)),
    "layer2": ((48, 96, 2),),
    "layer3": ((96, 128, 1), (128, 128, 2)),
}
"""Input channels, output channels and stride of the 3x3 convolutions of each stage."""


def small_cnn(stage: str) -> nn.Sequential:
    """The network up to `stage`: [B, 3, S, S] -> [B, channels, S / stride, S / stride]."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
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
