"""Encoding on the CPU by ONNX Runtime instead of torch: the `[onnx]` extra.

The model is exported from the loaded checkpoint for each build and the file is gone once it is
read: no ONNX file from elsewhere is ever opened. What ONNX Runtime gives is compared with torch on
the spot and differs in the last bits of float32, far less than int8 storage rounds off (the cosine
of an embedding from the one's maps and from the other's is above 0.9999, as the tests check). So
the runtime is no part of an index's identity: a build may go on with another one.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from indexer.atomic import temporary_file
from indexer.encode import Forward, ModelOutput, check_finite, torch_forward
from indexer.onnx_export import INPUT, OUTPUTS, export_onnx
from training.errors import ResourceError, UsageError
from training.models.embedder import Embedder

Runtime = Literal["torch", "onnx"]

RUNTIMES = ("torch", "onnx", "auto")

_INSTALL = 'pip install "m2fashion-retrieval[onnx]"'
_TOLERANCE = 1e-3  # of the largest value; float32 sums in another order differ by some 1e-6


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime and, where it was chosen rather than named, which and why."""

    runtime: Runtime
    remark: str | None = None


def choose_runtime(wanted: str, device: str) -> RuntimeChoice:
    """Resolve `torch`, `onnx` or `auto`, which is onnx on the CPU where it is installed.

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
        raise UsageError(f"runtime onnx encodes on the CPU, not on {device}; add --device cpu")
    try:
        load_onnxruntime()
    except ResourceError as error:
        if wanted == "auto":
            return RuntimeChoice("torch", f"encoding by torch: {error}")
        raise
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
    """A model's condition-free half, run by ONNX Runtime on as many threads as torch has.

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
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: warnings are about the graph, not about images
    with temporary_file(folder) as path:
        export_onnx(model, size, path)
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class but this one
            raise ResourceError(
                f"onnxruntime cannot read the exported model ({error}); use --runtime torch, "
                f"or upgrade: {_INSTALL}"
            ) from error

    def forward(images: Tensor) -> ModelOutput:
        try:
            found = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        except Exception as error:
            if "alloc" in str(error).lower():  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise
        return ModelOutput(*map(torch.from_numpy, found))

    _compare(forward, torch_forward(model), size)
    return forward


def _compare(forward: Forward, expected: Forward, size: int) -> None:
    """Refuse a runtime that does not give what torch gives for three images of noise."""
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, right = forward(images), expected(images)
    for name in OUTPUTS:
        ours, theirs = getattr(found, name), getattr(right, name)
        check_finite(theirs)
        error = float((ours - theirs).abs().max())
        if not error <= _TOLERANCE * max(float(theirs.abs().max()), 1e-6):
            raise ResourceError(
                f"onnxruntime gives other {name} than torch (by {error:.3g}); "
                f"use --runtime torch, or reinstall: {_INSTALL}"
            )
