"""What runs the model of a build: torch or ONNX Runtime, in the precision that was asked for."""

from __future__ import annotations

from typing import Literal, cast

from indexer.encode.encode import Forward
from indexer.encode.onnx import open_onnx
from training.checkpoint import Checkpoint, onnx_name
from training.device import has_fast_bfloat16
from training.errors import DataError, UsageError

Runtime = Literal["torch", "onnx", "onnx-int8"]
RUNTIMES = ("torch", "onnx", "onnx-int8", "auto")
PRECISIONS = ("auto", "float32", "bfloat16")


def choose_runtime(wanted: str, precision: str, device: str) -> tuple[Runtime, str]:
    """What runs a model on a device, and in `float32`, `bfloat16` or `int8` its backbone: part of
    an index's identity.

    Of `RUNTIMES` `auto` is onnx on the CPU, else torch. Of `PRECISIONS` it is bfloat16 on a GPU
    with instructions for it, else the runtime's own: never bfloat16 on a CPU unasked, or an index
    depends on its kind.

    Raises:
        UsageError: another word, onnx together with a GPU, or a format that it does not compute in.
    """
    words = ("runtime", wanted, RUNTIMES), ("precision", precision, PRECISIONS)
    for what, word, known in words:
        if word not in known:
            raise UsageError(f"unknown {what} {word!r}; choose {', '.join(known)}")
    if wanted.startswith("onnx") and device != "cpu":
        raise UsageError(f"runtime {wanted} encodes on the CPU, not on {device}; add --device cpu")
    if wanted == "auto":
        wanted = "onnx" if device == "cpu" and precision != "bfloat16" else "torch"
    if wanted == "torch":
        fast = device != "cpu" and has_fast_bfloat16("cuda")
        own = "bfloat16" if fast else "float32"
        return "torch", own if precision == "auto" else precision
    own = "int8" if wanted == "onnx-int8" else "float32"
    if precision not in ("auto", own):
        raise UsageError(
            f"runtime {wanted} computes in {own}, not in {precision}; leave --precision out"
        )
    return cast(Runtime, wanted), own


def choose_forward(
    checkpoint: Checkpoint, runtime: Runtime, precision: str, device: str
) -> Forward:
    """The model of a checkpoint, ready to encode; raises DataError if it is broken, or exported
    from other weights, ResourceError as `open_onnx`."""
    if runtime == "torch":
        from torch import channels_last

        from indexer.encode.on_torch import torch_forward

        model = checkpoint.model.to(device)
        model.to(memory_format=channels_last)  # type: ignore[call-overload]
        return torch_forward(model, checkpoint.preprocessing, device, precision)
    path = checkpoint.folder / onnx_name(precision)
    if not path.is_file():
        raise DataError(f"{checkpoint.folder} holds no {path.name}: its model card says why")
    exported = open_onnx(path.read_bytes(), str(path))
    if exported.checkpoint != checkpoint.hash:
        raise DataError(f"{path} was exported from other weights than lie beside it: train again")
    return exported.forward
