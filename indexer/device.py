"""Which device encodes: a GPU that is there and computes, else the CPU, saying so."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
    try:
        image = torch.linspace(-1, 1, 75).view(1, 3, 5, 5)
        kernel = torch.linspace(-1, 1, 54).view(2, 3, 3, 3)
        expected = torch.nn.functional.conv2d(image, kernel)
        found = torch.nn.functional.conv2d(image.to(name), kernel.to(name)).cpu()
    except (RuntimeError, ValueError) as error:
        return f"the GPU fails a self-test ({str(error).splitlines()[0]})"
    return None if torch.allclose(found, expected, atol=1e-2) else "the GPU fails a self-test"
