"""Pre-activation ResNet-50 (v2) up to its third stage.

He et al., Identity Mappings in Deep Residual Networks (ECCV 2016), in the form of the Gluon and
ONNX model zoos. Differs from torchvision's ResNet: each convolution is preceded by batch norm and
ReLU, the raw input passes a batch norm, and a stage's first shortcut branches off after the first
batch norm and ReLU.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = {"layer1": (3, 256), "layer2": (4, 512), "layer3": (6, 1024)}
"""Bottlenecks and output channels of the stages."""


class PreActivationBottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, each after batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.down = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        activated = F.relu(self.bn1(x))
        shortcut = x if self.down is None else self.down(activated)
        out = self.conv1(activated)
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.conv3(F.relu(self.bn3(out)))
        return out + shortcut  # type: ignore[no-any-return]


class ResNet50V2(nn.Module):
    """The network up to `stage`, with its closing batch norm `post` and ReLU.

    Args:
        stage: `layer1`, `layer2` or `layer3`. `post` has the channels of that stage; pretrained
            weights for it exist for `layer3`.
    """

    def __init__(self, stage: str = "layer3") -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 64
        for number, (name, (depth, outputs)) in enumerate(STAGES.items(), start=1):
            blocks = [
                PreActivationBottleneck(
                    inputs if block == 0 else outputs,
                    outputs,
                    stride=2 if block == 0 and number > 1 else 1,
                    project=block == 0,
                )
                for block in range(depth)
            ]
            stages[f"stage{number}"] = nn.Sequential(*blocks)
            inputs = outputs
            if name == stage:
                break
        for stage_name, module in stages.items():
            self.add_module(stage_name, module)
        self._stages = tuple(stages)
        self.post = nn.BatchNorm2d(inputs)
        self.channels = inputs

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> [B, channels, S / 16, S / 16] (layer3)."""
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every stage, lowest first; only the last has passed `post` and ReLU."""
        x = F.relu(self.bn1(self.conv0(self.bn0(images))))
        x = F.max_pool2d(x, 3, 2, 1)
        out = []
        for name in self._stages:
            x = self.get_submodule(name)(x)
            out.append(x)
        out[-1] = F.relu(self.post(x))
        return out
