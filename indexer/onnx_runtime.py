"""Encoding on the CPU by ONNX Runtime instead of torch: the `[onnx]` extra.

The model is exported from the loaded checkpoint for each build and the file is gone once it is
read: no ONNX file from elsewhere is ever opened. What ONNX Runtime gives is compared with torch on
the spot. In float32 (`onnx`) it differs in the last bits, far less than bytes round off, so that a
build may go on with another runtime. With the backbone in int8 (`onnx-int8`, see `onnx_int8.py`) it
differs by more; descriptors of the two precisions never mix in one index.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from indexer.encode import Forward, ModelOutput, check_finite, torch_forward
from indexer.onnx_export import INPUT, OUTPUTS, export_onnx
from indexer.onnx_int8 import Ranges, measure_ranges, quantise_backbone, quantised_tensors
from training.errors import DataError, ResourceError, UsageError
from training.files import temporary_file
from training.models.conditioned import Embedder

Runtime = Literal["torch", "onnx", "onnx-int8"]

RUNTIMES = ("torch", "onnx", "onnx-int8", "auto")

_INSTALL = 'pip install "m2fashion-retrieval[onnx]"'
_TOLERANCE = 1e-3  # of the largest value; float32 sums in another order differ by some 1e-6
_LEAST_COSINE = 0.9  # mean over images and locations; a trained ResNet-18's is above 0.99
_PIECE = 8  # images at a time: about the fastest, and their activations take 100 MB at 224 px


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and, where it was chosen rather than named, which and why."""

    runtime: Runtime
    remark: str | None = None


def choose_runtime(wanted: str, device: str) -> RuntimeChoice:
    """Resolve one of `RUNTIMES`; `auto` is onnx on the CPU where it is installed, else torch.

    Args:
        wanted: one of `RUNTIMES`.
        device: `cpu`, `cuda` or `cuda:N`, what encodes.

    Raises:
        UsageError: another word, or onnx together with a GPU.
        ResourceError: onnx was named and is not installed.
    """
    if wanted == "torch":
        return RuntimeChoice("torch")
    if wanted not in RUNTIMES:
        raise UsageError(f"unknown runtime {wanted!r}; choose {', '.join(RUNTIMES)}")
    if device != "cpu":
        if wanted == "auto":
            return RuntimeChoice("torch", f"encoding by torch: onnx is for the CPU, not {device}")
        raise UsageError(f"runtime {wanted} encodes on the CPU, not on {device}; add --device cpu")
    try:
        load_onnxruntime()
    except ResourceError as error:
        if wanted == "auto":
            return RuntimeChoice("torch", f"encoding by torch: {error}")
        raise
    if wanted == "onnx-int8":
        return RuntimeChoice("onnx-int8")
    return RuntimeChoice("onnx", "encoding by onnxruntime" if wanted == "auto" else None)


def load_onnxruntime() -> Any:
    """Import onnxruntime, after onnx, which the export needs.

    Raises:
        ResourceError: one of them is missing or broken; the message says what to install.
    """
    try:
        importlib.import_module("onnx")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ResourceError(f"the onnx runtime is not installed ({error}); {_INSTALL}") from error


def onnx_forward(model: Embedder, size: int, folder: Path) -> Forward:
    """A model run by ONNX Runtime on as many cores as torch has.

    Args:
        model: on the CPU; it is put in eval mode.
        size: S, side of its images in pixels.
        folder: where the exported file lies while it is read.

    Returns:
        Normalised images [B, 3, S, S] on the CPU, any B >= 1 -> `ModelOutput`.

    Raises:
        ResourceError: not installed, not exportable, results that are not torch's, or disk full.
        DataError: the model gives values that are not finite.
    """
    forward = _run_by(_open(exported_model(model, size, folder)))
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    for name, ours, theirs in _outputs(forward, torch_forward(model), images):
        error = float((ours - theirs).abs().max()) if theirs.numel() else 0.0
        largest = float(theirs.abs().max()) if theirs.numel() else 0.0
        if not error <= _TOLERANCE * max(largest, 1e-6):
            raise _differs(name, f"by {error:.3g}")
    return forward


def int8_ranges(exported: Any, images: Tensor) -> Ranges:
    """Ranges of a model's activations on some images, for `onnx_int8_forward`.

    Args:
        exported: of `exported_model`; it stays as it is.
        images: normalised [B, 3, S, S] on the CPU; some dozens of the gallery's.

    Raises:
        ResourceError: onnxruntime cannot read the model.
    """
    return measure_ranges(_copy(exported), _open, _pieces(images))


def onnx_int8_forward(model: Embedder, exported: Any, ranges: Ranges, images: Tensor) -> Forward:
    """As `onnx_forward`, with the backbone in int8.

    Args:
        model: on the CPU.
        exported: the same model, of `exported_model`; it stays as it is.
        ranges: of `int8_ranges`; equal ranges give equal results.
        images: normalised [B, 3, S, S] on the CPU, on which torch gives nearly the same.

    Raises:
        ResourceError: onnxruntime cannot read the model, or results that are not torch's.
        DataError: `ranges` of another model, or values that are not finite.
    """
    quantised = _copy(exported)
    if len(ranges) != len(quantised_tensors(quantised.graph)):
        raise DataError(
            "the index holds int8 ranges of another network, or those of an older version; "
            "build into another folder"
        )
    quantise_backbone(quantised, ranges)
    forward = _run_by(_open(quantised))
    for name, ours, theirs in _outputs(forward, torch_forward(model), images[:_PIECE]):
        told = theirs.any(dim=1)  # a nuance that was never taught is zero
        cosine = float(torch.cosine_similarity(ours[told], theirs[told], dim=1).mean())
        if told.any() and not cosine >= _LEAST_COSINE:
            raise _differs(name, f"mean cosine {cosine:.3f}")
    return forward


def exported_model(model: Embedder, size: int, folder: Path) -> Any:
    """A model as `onnx.ModelProto`.

    Args:
        model, size, folder: as for `onnx_forward`.

    Raises:
        ResourceError: not installed, not exportable or disk full.
    """
    load_onnxruntime()
    onnx = importlib.import_module("onnx")
    with temporary_file(folder) as path:
        export_onnx(model, size, path)
        try:
            return onnx.load(str(path))
        except Exception as error:  # protobuf's exceptions have no common class but this one
            raise _unreadable(error) from error


def _copy(exported: Any) -> Any:
    copied = type(exported)()
    copied.CopyFrom(exported)
    return copied


def _unreadable(error: Exception) -> ResourceError:
    return ResourceError(
        f"onnxruntime cannot read the exported model ({error}); use --runtime torch, "
        f"or upgrade: {_INSTALL}"
    )


def _open(exported: Any) -> Any:
    """An `onnxruntime.InferenceSession`."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each core takes images of its own, see `start_encoding`
    options.log_severity_level = 3  # errors only: warnings are about the graph, not about images
    try:
        return onnxruntime.InferenceSession(
            exported.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common class but this one
        raise _unreadable(error) from error


def _run_by(session: Any) -> Forward:
    def forward(images: Tensor) -> ModelOutput:
        try:
            pieces = [
                session.run(list(OUTPUTS), {INPUT: piece.contiguous().numpy()})
                for piece in _pieces(images)
            ]
        except Exception as error:
            if "alloc" in str(error).lower():  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise
        chances, nuance = (
            torch.cat([torch.from_numpy(p) for p in part]) for part in zip(*pieces, strict=True)
        )
        if not nuance.shape[1]:  # an empty output is traced with the batch of the tracing
            nuance = chances.new_zeros(len(chances), 0)
        return ModelOutput(chances, nuance)

    return forward


def _pieces(images: Tensor) -> list[Tensor]:
    return [images[start : start + _PIECE] for start in range(0, len(images), _PIECE)]


def _outputs(
    ours: Forward, theirs: Forward, images: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, ours and torch's of every output for some images."""
    with torch.inference_mode():
        found, right = ours(images), theirs(images)
    for name in OUTPUTS:
        check_finite(getattr(right, name))
        yield name, getattr(found, name), getattr(right, name)


def _differs(name: str, by: str) -> ResourceError:
    return ResourceError(
        f"onnxruntime gives other {name} than torch ({by}); "
        f"use --runtime torch, or reinstall: {_INSTALL}"
    )
