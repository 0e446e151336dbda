"""Encoding on the CPU by ONNX Runtime instead of torch: the `[onnx]` extra.

The model is exported from the loaded checkpoint for each build: no ONNX file from elsewhere is ever
opened. What ONNX Runtime gives is compared with torch on
the spot. In float32 (`onnx`) it differs in the last bits, so that a build may go on with another
runtime. With the backbone in int8 (`onnx-int8`) it differs by more; descriptors of the two
precisions never mix in one index.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
from torch import Tensor

from indexer.encode import Forward, check_finite, torch_forward
from indexer.onnx_export import INPUT, OUTPUTS, export_onnx
from indexer.onnx_int8 import Ranges, measure_ranges, quantise_backbone, quantised_tensors
from training.errors import DataError, ResourceError
from training.models.embedder import Described, Embedder

Runtime = Literal["torch", "onnx", "onnx-int8"]

_INSTALL = 'pip install "m2fashion-retrieval[onnx]"'
_FLOAT32_ERROR = 1e-3  # of an output's norm; float32 sums in another order differ by some 1e-6
_INT8_ERROR = 0.45  # a cosine of about 0.9; a trained ResNet-18 has above 0.99
_PIECE = 8  # images at a time whose ranges are measured


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


def onnx_forward(model: Embedder, size: int) -> Forward:
    """A model on the CPU run by ONNX Runtime, on one core a call.

    Args:
        model: on the CPU; it is put in eval mode.
        size: S, side of its images in pixels.

    Raises:
        ResourceError: not installed, not exportable, or results that are not torch's.
        DataError: the model gives values that are not finite.
    """
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return _forward(exported_model(model, size), model, images, _FLOAT32_ERROR)


def int8_ranges(exported: Any, images: Tensor) -> Ranges:
    """Ranges of a model's activations, for `onnx_int8_forward`.

    Args:
        exported: of `exported_model`; it stays as it is.
        images: normalised [B, 3, S, S] on the CPU; some dozens of the gallery's.
    """
    return measure_ranges(_copy(exported), _open, torch.split(images, _PIECE))


def onnx_int8_forward(model: Embedder, exported: Any, ranges: Ranges, images: Tensor) -> Forward:
    """As `onnx_forward`, with the backbone in int8.

    Args:
        model: on the CPU.
        exported: the same model, of `exported_model`; it stays as it is.
        ranges: of `int8_ranges`; equal ranges give equal results.
        images: normalised [B, 3, S, S] on the CPU, on which torch gives nearly the same.

    Raises:
        ResourceError: results that are not torch's.
        DataError: `ranges` of another model, or values that are not finite.
    """
    if len(ranges) != len(quantised_tensors(exported.graph)):
        raise DataError("the index holds int8 ranges of another network; build into another folder")

    quantised = quantise_backbone(_copy(exported), ranges)
    return _forward(quantised, model, images[:_PIECE], _INT8_ERROR)


def exported_model(model: Embedder, size: int) -> Any:
    """A model as `onnx.ModelProto`; arguments and errors as of `onnx_forward`."""
    load_onnxruntime()
    return importlib.import_module("onnx").load_from_string(export_onnx(model, size))


def _copy(exported: Any) -> Any:
    copied = type(exported)()
    copied.CopyFrom(exported)
    return copied


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
        raise ResourceError(
            f"onnxruntime cannot read the exported model ({error}); use --runtime torch, "
            f"or upgrade: {_INSTALL}"
        ) from error


def _forward(exported: Any, model: Embedder, images: Tensor, limit: float) -> Forward:
    """A graph, if what it gives for some images is what torch gives but for `limit` of its norm."""
    session = _open(exported)

    def forward(images: Tensor) -> Described:
        try:
            given = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        except Exception as error:
            if "alloc" in str(error).lower():  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise
        chances, nuance = map(torch.from_numpy, given)
        if not nuance.shape[1]:  # an empty output is traced with the batch of the tracing
            nuance = chances.new_zeros(len(chances), 0)
        return Described(chances, nuance)

    with torch.inference_mode():
        found, right = forward(images), torch_forward(model)(images)
    for name, ours, theirs in zip(OUTPUTS, found, right, strict=True):
        check_finite(theirs)
        error = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6))
        if not error <= limit:
            raise ResourceError(
                f"onnxruntime gives other {name} than torch (by {error:.3g} of their norm); "
                f"use --runtime torch, or reinstall: {_INSTALL}"
            )
    return forward
