"""Many small tensors moved to a GPU by one copy, filled up with zeros to what a kernel reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

LARGEST = 65_504.0
"""Of fp16; numbers beyond stay at it."""

_ALIGNED = 16  # bytes


@dataclass(frozen=True)
class Part:
    """A tensor in main memory, of any layout, and what a kernel reads of it.

    Args:
        tensor: of as many dimensions as `shape`, none of them longer.
        shape: filled up with zeros.
        kind: of the numbers there.
        halves: float32 as two fp16 whose sum it is, [2, *shape]; numbers beyond `LARGEST` stay at
            it. `kind` says nothing then.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    kind: torch.dtype = torch.float32
    halves: bool = False

    @property
    def nbytes(self) -> int:
        """On the device."""
        return prod(self.shape) * (4 if self.halves else self.kind.itemsize)


def packed(parts: Sequence[Part], device: torch.device) -> list[Tensor]:
    """Contiguous tensors on a device, one a part; they share one piece of memory.

    Args:
        parts: each a multiple of 16 bytes, so that all of them are aligned.
        device: where to.
    """
    sizes = [part.nbytes for part in parts]
    assert not any(size % _ALIGNED for size in sizes), f"not aligned: {sizes}"
    pinned = device.type == "cuda"  # so that nobody waits for the copy
    with torch.inference_mode():
        host = torch.zeros(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
        for part, room in zip(parts, _rooms(host, parts, sizes), strict=True):
            places = tuple(map(slice, part.tensor.shape))
            if part.halves:
                tensor = part.tensor.clamp(-LARGEST, LARGEST)
                high = room[0][places].copy_(tensor)
                room[1][places].copy_(tensor - high)
            else:
                room[places].copy_(part.tensor)
        return _rooms(host.to(device, non_blocking=True), parts, sizes)


def _rooms(memory: Tensor, parts: Sequence[Part], sizes: list[int]) -> list[Tensor]:
    pieces = zip(torch.split(memory, sizes), parts, strict=True)
    return [
        piece.view(torch.float16).view(2, *part.shape)
        if part.halves
        else piece.view(part.kind).view(part.shape)
        for piece, part in pieces
    ]
