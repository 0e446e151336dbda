"""What runs the model of a build: torch or ONNX Runtime, in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from indexer.encode import Forward, torch_forward
from indexer.fused_forward import fused_forward
from indexer.onnx_int8 import Ranges
from indexer.onnx_runtime import (
    Runtime,
    exported_model,
    int8_ranges,
    onnx_forward,
    onnx_int8_forward,
)
from training.models.conditioned import ConditionedEmbedder


@dataclass(frozen=True)
class ChosenForward:
    """A forward and, where the backbone computes in int8, the ranges of its activations."""

    forward: Forward
    int8_ranges: Ranges = ()


def choose_forward(
    model: ConditionedEmbedder,
    size: int,
    runtime: Runtime,
    precision: str,
    folder: Path,
    sample: Callable[[], Tensor],
    ranges: Ranges,
) -> ChosenForward:
    """Make a model ready for a gallery.

    Args:
        model: on the device that encodes.
        size: S, side of its images in pixels.
        runtime: of `choose_runtime`.
        precision: of `encoding_precision`.
        folder: where exported files lie while they are read.
        sample: gives normalised images of the gallery [B, 3, S, S]; asked for int8 alone.
        ranges: those that the index's other images were encoded with; empty: to be measured.

    Raises:
        ResourceError, DataError: as `onnx_forward` and `onnx_int8_forward`.
    """
    if runtime == "onnx":
        return ChosenForward(onnx_forward(model, size, folder))
    if runtime == "onnx-int8":
        images, exported = sample(), exported_model(model, size, folder)
        ranges = ranges or int8_ranges(exported, images)
        return ChosenForward(onnx_int8_forward(model, exported, ranges, images), ranges)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "float32":
        return ChosenForward(fused_forward(model))
    return ChosenForward(torch_forward(model, precision))
