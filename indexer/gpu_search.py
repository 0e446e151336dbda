"""Searching every descriptor on a GPU by torch: products of matrices, a chunk of bytes at a time.

The bytes lie on the GPU as they are stored; a chunk becomes float32 on the way to its product. A
pass is bound by memory: faiss-gpu has no flat index over bytes, and would hold them twice as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.flat_bytes import Allowed, Bytes, Weights

_CHUNK = 1 << 18  # rows at a time
_QUERIES = 64  # at a time
_SHARE = 0.8  # of the free memory that descriptors may take; the rest is for products


@dataclass(frozen=True)
class OnGpu:
    """A source on a GPU, None if the CPU has to search, and which of the two, in words."""

    source: TorchBytes | None
    remark: str


class TorchBytes:
    """All descriptors on a torch device.

    Args:
        blocks: descriptors [n, width] uint8 of consecutive rows.
        rows: M.
        width: bytes of a descriptor.
        device: torch's name: `cuda`, `cuda:N` or, for tests, `cpu`.
    """

    exact = True

    def __init__(self, blocks: Iterator[Bytes], rows: int, width: int, device: str) -> None:
        self._bytes = torch.empty((rows, width), dtype=torch.uint8, device=device)
        start = 0
        for block in blocks:
            self._bytes[start : start + len(block)] = torch.from_numpy(np.array(block)).to(device)
            start += len(block)

    def candidates(
        self, weights: Weights, count: int, allowed: Allowed | None, exact: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and rows [Q, count], best first; -1: none."""
        kept = None
        if allowed is not None:
            kept = torch.from_numpy(np.array(allowed)).to(self._bytes.device)
        scores, rows = [], []
        with torch.inference_mode():
            for start in range(0, len(weights), _QUERIES):
                part = torch.from_numpy(np.array(weights[start : start + _QUERIES]))
                best = self._best(part.to(self._bytes.device), count, kept)
                scores.append(best[0].cpu().numpy())
                rows.append(best[1].cpu().numpy())
        return np.concatenate(scores), np.concatenate(rows)

    def _best(
        self, weights: torch.Tensor, count: int, kept: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        best = weights.new_empty((len(weights), 0))
        rows = torch.empty((len(weights), 0), dtype=torch.int64, device=weights.device)
        for start in range(0, len(self._bytes), _CHUNK):
            chunk = self._bytes[start : start + _CHUNK].float()
            scores = weights @ chunk.T  # in float32: torch rounds to TF32 only where it is told to
            if kept is not None:
                scores.masked_fill_(~kept[start : start + _CHUNK], -torch.inf)
            numbers = torch.arange(start, start + len(chunk), device=weights.device)
            best = torch.cat([best, scores], 1)
            rows = torch.cat([rows, numbers.expand(len(weights), -1)], 1)
            best, order = best.topk(min(count, best.shape[1]), dim=1)
            rows = rows.gather(1, order)
        return best, rows.masked_fill(best == -torch.inf, -1)


def open_on_gpu(blocks: Callable[[], Iterator[Bytes]], rows: int, width: int, device: str) -> OnGpu:
    """Copy descriptors [rows, width] to a GPU, if they fit into most of its free memory.

    Args:
        blocks: gives them, a shard at a time.
        rows: M.
        width: bytes of a descriptor.
        device: `cuda` or `cuda:N`.
    """
    try:
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        if rows * width > _SHARE * free:
            return OnGpu(None, f"on the CPU: {rows:,} descriptors do not fit {device}")
        return OnGpu(TorchBytes(blocks(), rows, width, device), f"flat bytes on {device} by torch")
    except (RuntimeError, AssertionError) as error:  # the latter: torch without CUDA
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return OnGpu(None, f"on the CPU: torch fails on {device} ({first})")
