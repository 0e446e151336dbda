"""What is computed on: the device, its number formats, and the memory of long jobs."""

from __future__ import annotations

import ctypes
import importlib
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from training.errors import ResourceError, UsageError


def autocast(setting: str, device: str) -> AbstractContextManager[object]:
    """A context in which matrix products run in `float32`, `bfloat16` or, with `auto`, the faster.

    bfloat16 has float32's range, so the loss needs no scaling. On a CPU it pays only with matrix
    instructions for it (AMX: ten times float32 in a large product); without them it is emulated.
    """
    import torch

    kind = device.partition(":")[0]
    wanted = setting == "bfloat16" or (setting == "auto" and has_fast_bfloat16(kind))
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=wanted)


def has_fast_bfloat16(kind: str) -> bool:
    """Whether `cpu` or `cuda` has instructions for products of bfloat16 matrices."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def open_session(content: bytes, cores: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` of a graph, on so many cores a call; raises ResourceError
    if onnxruntime is missing, and what it raises if it cannot read the graph."""
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ResourceError(
            f"onnxruntime is not installed ({error}); pip install onnxruntime"
        ) from error
    onnxruntime.disable_telemetry_events()  # nobody is told of what is computed here
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = cores, 1
    options.log_severity_level = 3  # errors only: warnings are about the graph, not about images
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 2**31 - 1
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def keep_freed_memory() -> bool:
    """Tell glibc not to return memory for the rest of this process, for long batch jobs; whether
    that took effect: elsewhere than on Linux with glibc nothing is changed."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


@dataclass(frozen=True)
class DeviceChoice:
    """A device and, where it is not what one might expect, why."""

    device: str
    remark: str | None = None


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`; raises UsageError for another word, ResourceError
    for a named GPU that does not work.

    A GPU is used only after a tiny convolution on it gave what the CPU gives: a driver may be
    there without kernels for the card. torch is imported only where there is a driver.
    """
    if wanted == "cpu":
        return DeviceChoice("cpu")
    if wanted != "auto" and wanted.partition(":")[0] != "cuda":
        raise UsageError(f"unknown device {wanted!r}; choose auto, cpu, cuda or cuda:N")
    name = "cuda" if wanted == "auto" else wanted
    trouble = _trouble(name) if _has_driver() else "no usable GPU"
    if trouble is None:
        return DeviceChoice(name)
    if wanted == "auto":
        return DeviceChoice("cpu", f"encoding on the CPU: {trouble}")
    raise ResourceError(f"device {wanted}: {trouble}; choose --device cpu")


def _has_driver() -> bool:
    """Whether a driver of CUDA is installed; it takes a millisecond, importing torch a second."""
    try:
        return bool(ctypes.CDLL(_DRIVER))
    except OSError:
        return False


def _trouble(name: str) -> str | None:
    try:
        import torch
        from torch.nn.functional import conv2d
    except ImportError:
        return 'torch is not installed (pip install "m2fashion-retrieval[gpu]")'
    if not torch.cuda.is_available():
        return "no usable GPU"
    image, kernel = torch.arange(75.0).view(1, 3, 5, 5), torch.arange(54.0).view(2, 3, 3, 3)
    try:
        found = conv2d(image.to(name) / 75, kernel.to(name) / 54).cpu()
    except (RuntimeError, ValueError) as error:
        return f"the GPU fails a self-test ({str(error).splitlines()[0]})"
    right = conv2d(image / 75, kernel / 54)
    return None if torch.allclose(found, right, rtol=1e-2) else "the GPU fails a self-test"
