"""In which number format a model computes while it is trained."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def autocast(setting: str, device: str) -> AbstractContextManager[object]:
    """A context in which matrix products run in the format asked for.

    bfloat16 has float32's range, so the loss needs no scaling. On a CPU it pays only with matrix
    instructions for it (AMX: ten times float32 in a large product); without them it is emulated.

    Args:
        setting: `float32`, `bfloat16` or `auto`.
        device: `cpu`, `cuda` or `cuda:N`.
    """
    kind = device.partition(":")[0]
    wanted = setting == "bfloat16" or (setting == "auto" and has_fast_bfloat16(kind))
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=wanted)


def has_fast_bfloat16(kind: str) -> bool:
    """Whether `cpu` or `cuda` has instructions for products of bfloat16 matrices."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
