"""Which device encodes: a GPU that is there and computes, else the CPU, saying so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d

from training.errors import ResourceError, UsageError


@dataclass(frozen=True)
class DeviceChoice:
    """A device and, where it is not what one might expect, why."""

    device: str
    remark: str | None = None


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`.

    A GPU is used only after a tiny convolution on it gave what the CPU gives: a driver may be
    there without kernels for the card.

    Raises:
        UsageError: another word.
        ResourceError: a GPU was named and does not work.
    """
    if wanted == "cpu":
        return DeviceChoice("cpu")
    if wanted != "auto" and wanted.partition(":")[0] != "cuda":
        raise UsageError(f"unknown device {wanted!r}; choose auto, cpu, cuda or cuda:N")
    name = "cuda" if wanted == "auto" else wanted
    trouble = _trouble(name)
    if trouble is None:
        return DeviceChoice(name)
    if wanted == "auto":
        return DeviceChoice("cpu", f"encoding on the CPU: {trouble}")
    raise ResourceError(f"device {wanted}: {trouble}; choose --device cpu")


def _trouble(name: str) -> str | None:
    if not torch.cuda.is_available():
        return "no usable GPU"
    image, kernel = torch.arange(75.0).view(1, 3, 5, 5), torch.arange(54.0).view(2, 3, 3, 3)
    try:
        found = conv2d(image.to(name) / 75, kernel.to(name) / 54).cpu()
    except (RuntimeError, ValueError) as error:
        return f"the GPU fails a self-test ({str(error).splitlines()[0]})"
    right = conv2d(image / 75, kernel / 54)
    return None if torch.allclose(found, right, rtol=1e-2) else "the GPU fails a self-test"
