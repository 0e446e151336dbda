"""Backbones cut after a stage: torchvision's ResNets, a pre-activation ResNet-50, a small network,
and whatever timm has (`timm_backbones.py`).

A backbone maps normalised images [B, 3, S, S] to F [B, channels, S / stride, S / stride].
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import DataError, ResourceError, UsageError
from training.models.config import TIMM

CHANNELS = {
    "resnet18": {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512},
    "resnet34": {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512},
    "resnet50": {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048},
    "resnet50v2": {"layer1": 256, "layer2": 512, "layer3": 1024},
    "small": {"layer1": 48, "layer2": 96, "layer3": 128},
}
"""Channels of F at the end of each stage of each backbone but timm's, see `stage_channels`."""

_SMALL = {
    "layer1": ((5, 24, 2), (24, 48, 2)),
    "layer2": ((48, 96, 2),),
    "layer3": ((96, 128, 1), (128, 128, 2)),
}
"""Input channels, output channels and stride of the 3x3 convolutions of each stage of `small`."""

PIXELS = 6
"""Channels of the pixels' mean and deviation."""

FLAT = 0.01
"""Least deviation, about half a grey level: below it float32 and other runtimes see noise."""


class StagedBackbone(nn.Module, ABC):
    """A backbone that gives the maps of all its stages at once."""

    @abstractmethod
    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every stage, lowest first, of normalised images [B, 3, S, S]."""

    def forward(self, images: Tensor) -> Tensor:
        """That of the last: [B, channels, S / stride, S / stride]."""
        return self.stages(images)[-1]


def stage_channels(name: str) -> dict[str, int]:
    """Channels of F at the end of each stage of a backbone, lowest first; UsageError if there is
    none of this name."""
    if name.startswith(TIMM):
        from training.models.timm_backbones import timm_stages

        return {stage: end.channels for stage, end in timm_stages(name).items()}
    if name not in CHANNELS:
        raise UsageError(f"no backbone {name!r}; there are {', '.join(CHANNELS)}, {TIMM}NAME")
    return CHANNELS[name]


def backbone_channels(name: str, stage: str) -> int:
    """Channels of F at the end of `stage`; UsageError if the backbone has no such stage."""
    stages = stage_channels(name)
    if stage not in stages:
        raise UsageError(f"{name} has no stage {stage!r}, but {', '.join(stages)}")
    return stages[stage]


def pictures_of(name: str, weights: str | None) -> dict[str, Any]:
    """`mean`, `std` and `size` of the pictures that a backbone of timm was trained on, as fields of
    `Preprocessing`; none for others, whose are its defaults. Raises UsageError."""
    if not name.startswith(TIMM):
        return {}
    from training.models.timm_backbones import timm_record

    record = timm_record(name, weights)
    return {"mean": record.mean, "std": record.std, "size": record.input_size[-1]}


def backbone_source(name: str, weights: str | None) -> dict[str, str]:
    """Where a backbone of timm and its weights are from, in words; nothing is known of others."""
    if not name.startswith(TIMM):
        return {}
    from training.models.timm_backbones import timm_source

    return timm_source(name, weights)


def build_backbone(name: str, stage: str, weights: str | None = None) -> nn.Module:
    """A backbone of `CHANNELS`, or `timm:NAME`, cut after `stage`.

    `weights` are None (random), the path of a `.safetensors` file with torchvision's keys (for
    resnet50v2: its own; for timm's: timm's), `imagenet` (torchvision's or timm's default weights)
    or the name of one of torchvision's weight enums, such as `IMAGENET1K_V1`, or of timm's tags;
    the last two are downloaded by torchvision or timm unless its cache has them.

    Raises:
        UsageError: an unknown backbone, stage or weight enum; timm is asked for and not installed.
        DataError: a weights file that is missing, broken or does not fit.
        ResourceError: the weights could not be downloaded.
    """
    backbone_channels(name, stage)
    if name.startswith(TIMM):
        from training.models.timm_backbones import TimmTrunk

        return TimmTrunk(name, stage, weights)
    if name == "resnet50v2":
        network: nn.Module = ResNet50V2(stage)
    elif name == "small":
        network = _small_cnn(stage)
    else:
        from training.torchvision_shim import models

        whole = list(models.get_model(name, weights=None).named_children())
        last = [child for child, _ in whole].index(stage)
        network = nn.Sequential(OrderedDict(whole[: last + 1]))
    if weights is None:
        return network
    state = read_weights(Path(weights)) if is_file(weights) else _enum_weights(name, weights)
    load_state(network, state, weights)
    return network


def is_file(weights: str) -> bool:
    """Whether weights are a file's, not the name of what is downloaded."""
    return weights.endswith(".safetensors") or "/" in weights


def lower_channels(backbone: str, stage: str) -> int:
    """Channels that `with_lower_stages` puts before the last stage's own."""
    stages = stage_channels(backbone)
    return PIXELS + sum(list(stages.values())[: list(stages).index(stage)])


def channels_below(backbone: str, stage: str) -> int:
    """Channels of the stage below `stage`, the last of those; of the pixels if there is none."""
    stages = stage_channels(backbone)
    return [PIXELS, *stages.values()][list(stages).index(stage)]


def last_stage(backbone: nn.Module) -> nn.Sequential:
    """The layers of the last stage, the backbone's own, which run on the output of the stage below:
    [B, channels below, h, w] -> [B, channels, S / stride, S / stride]. None of timm's."""
    if isinstance(backbone, ResNet50V2):
        return backbone.last_stage
    assert isinstance(backbone, nn.Sequential), "checked by RunConfig"
    return nn.Sequential(backbone[-1])


def stages_below(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """The output of every stage but the last, lowest first; none of timm's."""
    if isinstance(backbone, ResNet50V2):
        return backbone.stages_below(images)[1:]
    assert isinstance(backbone, nn.Sequential), "checked by RunConfig"
    return _stages(backbone[:-1], images)


def with_lower_stages(backbone: nn.Module, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean and deviation of the pixels, and the maps of all stages, averaged over cells.

    Not in the paper. A backbone trained to tell objects apart forgets colour on its way up: on
    colour its last stages do worse than random features. What its lower stages saw is kept.
    Normalised [B, 3, S, S] -> [B, lower channels + channels of the last stage, H, W].
    """
    return averaged(images, _stages(backbone, images), grid)


def averaged(images: Tensor, stages: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """The same of the stages [B, channels, h, w] that are at hand."""
    mean = F.adaptive_avg_pool2d(images, grid)
    square = F.adaptive_avg_pool2d(images.square(), grid)
    deviation = (square - mean.square()).clamp(min=FLAT**2).sqrt()
    maps = [F.adaptive_avg_pool2d(x, grid) for x in stages]
    return torch.cat([mean, deviation, *(m.to(mean.dtype) for m in maps)], 1)


def _stages(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    if isinstance(backbone, StagedBackbone):
        return backbone.stages(images)
    found, x = [], images
    for name, module in backbone.named_children():
        x = module(x)
        if name.startswith("layer"):
            found.append(x)
    return found


def _enum_weights(name: str, weights: str) -> dict[str, Tensor]:
    if name in ("resnet50v2", "small"):
        raise UsageError(f"torchvision has no weights for {name}; pass a .safetensors file")
    from training.torchvision_shim import models

    enum: Any = models.get_model_weights(name)
    if weights == "imagenet":
        member = enum.DEFAULT
    elif weights in enum.__members__:
        member = enum[weights]
    else:
        names = ", ".join(["imagenet", *enum.__members__])
        raise UsageError(f"unknown weights {weights!r} for {name}: use {names} or a .safetensors")
    try:
        return cast(dict[str, Tensor], member.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise ResourceError(
            f"torchvision could not download {member} ({error}); "
            "pass a local file with --weights FILE.safetensors"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; every other floating point becomes float32.

    DataError if it is missing, no safetensors, or holds NaN or infinity.
    """
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist")
    try:
        state = {k: t.float() if t.is_floating_point() else t for k, t in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}") from error
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{path}: tensor {key!r} holds NaN or infinity")
    return state


def add_weights(digest: hashlib._Hash, network: nn.Module) -> None:
    """Add the names and values of all tensors of a network to a digest."""
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())


def load_state(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load `state`, whose keys of later stages and of the classifier are ignored; DataError if one
    of the network's is missing or of another shape."""
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    if missing:
        raise DataError(
            f"{where} lacks {len(missing)} tensors of this backbone, first {missing[0]!r}; "
            "is it another backbone, or cut at an earlier stage?"
        )
    for key, tensor in wanted.items():
        if key in state and state[key].shape != tensor.shape:
            raise DataError(
                f"{where}: {key!r} has shape {tuple(state[key].shape)}, "
                f"the backbone needs {tuple(tensor.shape)}"
            )
    network.load_state_dict({k: state.get(k, t) for k, t in wanted.items()})


class ResNet50V2(StagedBackbone):
    """Pre-activation ResNet-50 (v2) up to `stage`, with its closing batch norm `post` and ReLU.

    He et al., Identity Mappings in Deep Residual Networks (ECCV 2016), in the form of the Gluon and
    ONNX model zoos. Differs from torchvision's ResNet: each convolution is preceded by batch norm
    and ReLU, the raw input passes a batch norm, and a stage's first shortcut branches off after
    the first batch norm and ReLU. Pretrained weights of `post` exist for `layer3`.
    """

    def __init__(self, stage: str = "layer3") -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        self._stages = tuple(f"stage{n}" for n in range(1, int(stage.removeprefix("layer")) + 1))
        channels = CHANNELS["resnet50v2"].values()
        for name, depth, outputs in zip(self._stages, (3, 4, 6), channels, strict=False):
            first = PreActivationBottleneck(inputs, outputs, 1 if inputs == 64 else 2, project=True)
            rest = (PreActivationBottleneck(outputs, outputs) for _ in range(depth - 1))
            self.add_module(name, nn.Sequential(first, *rest))
            inputs = outputs
        self.post = nn.BatchNorm2d(inputs)

    def stages(self, images: Tensor) -> list[Tensor]:
        """The output of every stage, lowest first; only the last has passed `post` and ReLU."""
        below = self.stages_below(images)
        last = F.relu(self.post(self.get_submodule(self._stages[-1])(below[-1])))
        return [*below[1:], last]

    def stages_below(self, images: Tensor) -> list[Tensor]:
        """The input of the first stage, then the output of every stage but the last."""
        x = F.relu(self.bn1(self.conv0(self.bn0(images))))
        out = [F.max_pool2d(x, 3, 2, 1)]
        for name in self._stages[:-1]:
            out.append(self.get_submodule(name)(out[-1]))
        return out

    @property
    def last_stage(self) -> nn.Sequential:
        """The layers of the last stage, `post` and ReLU included."""
        return nn.Sequential(self.get_submodule(self._stages[-1]), self.post, nn.ReLU())


class PreActivationBottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, each after batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False) -> None:
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


def _small_cnn(stage: str) -> nn.Sequential:
    """A plain convolutional network for the demo and for tests, which learns from scratch.

    Stages have the strides of a ResNet's (4, 8, 16). Two further input channels say where a pixel
    is (CoordConv, Liu et al., NeurIPS 2018): so few layers see too little of the picture to tell.
    """
    stages: OrderedDict[str, nn.Module] = OrderedDict(coordinates=Coordinates())
    for name, convolutions in _SMALL.items():
        layers: list[nn.Module] = []
        for inputs, outputs, stride in convolutions:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        stages[name] = nn.Sequential(*layers)
        if name == stage:
            break
    return nn.Sequential(stages)


class Coordinates(nn.Module):
    """Append the coordinates of each pixel, from -1 to 1: [B, 3, H, W] -> [B, 5, H, W]."""

    def forward(self, images: Tensor) -> Tensor:
        """x, then y, after the image's own channels."""
        batch, _, height, width = images.shape
        x = torch.linspace(-1, 1, width, dtype=images.dtype, device=images.device)
        y = torch.linspace(-1, 1, height, dtype=images.dtype, device=images.device)
        grid = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)])
        return torch.cat([images, grid.unsqueeze(0).expand(batch, -1, -1, -1)], 1)
