"""What runs the model of a build: torch or ONNX Runtime, in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from indexer.encode.encode import Forward, torch_forward
from indexer.encode.onnx import (
    Ranges,
    Runtime,
    exported_model,
    int8_ranges,
    load_onnxruntime,
    onnx_forward,
    onnx_int8_forward,
)
from training.device import has_fast_bfloat16
from training.errors import ResourceError, UsageError
from training.models.embedder import ConditionedEmbedder

RUNTIMES = ("torch", "onnx", "onnx-int8", "auto")
PRECISIONS = ("auto", "float32", "bfloat16")


def choose_runtime(wanted: str, precision: str, device: str) -> tuple[Runtime, str]:
    """What runs a model on a device, and in `float32`, `bfloat16` or `int8` its backbone: part of
    an index's identity.

    Of `RUNTIMES` `auto` is onnx on the CPU where it is installed, else torch. Of `PRECISIONS` it is
    bfloat16 on a GPU with instructions for it, else the runtime's own: never bfloat16 on a CPU
    unasked, or an index depends on its kind.

    Raises:
        UsageError: another word, onnx together with a GPU, or a format that it does not compute in.
        ResourceError: onnx was named and is not installed.
    """
    words = ("runtime", wanted, RUNTIMES), ("precision", precision, PRECISIONS)
    for what, word, known in words:
        if word not in known:
            raise UsageError(f"unknown {what} {word!r}; choose {', '.join(known)}")
    if wanted.startswith("onnx") and device != "cpu":
        raise UsageError(f"runtime {wanted} encodes on the CPU, not on {device}; add --device cpu")
    runtime: Runtime = "torch"
    if wanted != "torch" and device == "cpu":
        try:
            load_onnxruntime()
            runtime = "onnx-int8" if wanted == "onnx-int8" else "onnx"
        except ResourceError:
            if wanted != "auto":
                raise
    if runtime == "torch":
        fast = device != "cpu" and has_fast_bfloat16("cuda")
        own = "bfloat16" if fast else "float32"
        return runtime, own if precision == "auto" else precision
    own = "int8" if runtime == "onnx-int8" else "float32"
    if precision not in ("auto", own):
        raise UsageError(
            f"runtime {runtime} computes in {own}, not in {precision}; leave --precision out"
        )
    return runtime, own


def choose_forward(
    model: ConditionedEmbedder,
    size: int,
    runtime: Runtime,
    precision: str,
    sample: Callable[[], Tensor],
    ranges: Ranges,
) -> tuple[Forward, Ranges]:
    """Make a model, on the device that encodes, ready for images of side `size` of a gallery.

    In int8 the ranges of its activations go with it: those that the index's other images were
    encoded with or, if there are none, those of a `sample`, normalised images [B, 3, S, S]. Raises
    as `onnx_forward` and `onnx_int8_forward`.
    """
    if runtime == "onnx":
        return onnx_forward(model, size), ()
    if runtime == "onnx-int8":
        images, exported = sample(), exported_model(model, size)
        ranges = ranges or int8_ranges(exported, images)
        return onnx_int8_forward(model, exported, ranges, images), ranges
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "float32" and isinstance(model, ConditionedEmbedder):
        return fused_forward(model), ()
    return torch_forward(model, precision), ()


class _Trunk(nn.Module):
    def __init__(self, model: ConditionedEmbedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.trunk(images)


def fused_forward(model: ConditionedEmbedder) -> Forward:
    """As `torch_forward`, with a copy of the backbone that has each batch norm folded into the
    convolution before it: equal but for the last bits. The model is put in eval mode."""
    trunk = fuse(_Trunk(model.eval()))
    # The first convolution turns them to channels-last; pixels are averaged faster as they are.
    return lambda images: model.describe(trunk(images))
