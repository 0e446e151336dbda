"""Backbones: torchvision ResNets by stage, and the pre-activation ResNet-50 v2.

A backbone maps normalised images [B, 3, S, S] to F [B, channels, S / stride, S / stride].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import DataError, ResourceError, UsageError
from training.models import resnet50v2, small_cnn

NAMES = ("resnet18", "resnet34", "resnet50", "resnet50v2", "small")
_EXPANSION = {"resnet18": 1, "resnet34": 1, "resnet50": 4}
_WIDTH = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}


def backbone_channels(name: str, stage: str) -> int:
    """Channels of F at the end of `stage`.

    Raises:
        UsageError: if the backbone has no such stage.
    """
    if name == "resnet50v2":
        _check_stage(name, stage, resnet50v2.STAGES)
        return resnet50v2.STAGES[stage][1]
    if name == "small":
        _check_stage(name, stage, small_cnn.STAGES)
        return small_cnn.STAGES[stage][-1][1]
    if name not in _EXPANSION or stage not in _WIDTH:
        raise UsageError(
            f"no backbone {name!r} with stage {stage!r}; backbones: {', '.join(NAMES)}; "
            f"stages: {', '.join(_WIDTH)}"
        )
    return _WIDTH[stage] * _EXPANSION[name]


def build_backbone(name: str, stage: str, weights: str | None = None) -> nn.Module:
    """A backbone cut after `stage`.

    Args:
        name: one of `NAMES`.
        stage: `layer1` to `layer4`.
        weights: None (random), the path of a `.safetensors` file with torchvision's keys (for
            resnet50v2: its own), `imagenet` (torchvision's default weights) or the name of one of
            torchvision's weight enums, such as `IMAGENET1K_V1`; the last two are downloaded by
            torchvision unless its cache has them.

    Raises:
        UsageError: an unknown backbone, stage or weight enum.
        DataError: a weights file that is missing, broken or does not fit.
        ResourceError: torchvision could not download the weights.
    """
    backbone_channels(name, stage)
    if name == "resnet50v2":
        network: nn.Module = resnet50v2.ResNet50V2(stage)
    elif name == "small":
        network = small_cnn.small_cnn(stage)
    else:
        network = _torchvision_until(name, stage)
    if weights is None:
        return network
    if weights.endswith(".safetensors") or "/" in weights:
        state = read_weights(Path(weights))
    else:
        state = _enum_weights(name, weights)
    load_backbone_weights(network, state, weights)
    return network


def _check_stage(name: str, stage: str, stages: Collection[str]) -> None:
    if stage not in stages:
        raise UsageError(f"{name} has the stages {', '.join(stages)}, not {stage!r}")


def _torchvision_until(name: str, stage: str) -> nn.Module:
    from training.torchvision_shim import models

    network = cast(nn.Module, models.get_model(name, weights=None))
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    for child, module in network.named_children():
        kept[child] = module
        if child == stage:
            break
    return nn.Sequential(kept)


def _enum_weights(name: str, weights: str) -> dict[str, Tensor]:
    if name not in _EXPANSION:
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

    Raises:
        DataError: if the file is missing, no safetensors, or holds NaN or infinity.
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


def load_backbone_weights(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load `state` into `network`; keys of later stages and of the classifier are ignored.

    Raises:
        DataError: if a tensor of the network is missing or of another shape.
    """
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
