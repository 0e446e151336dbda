"""Searching every descriptor on a GPU, by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from indexer.search.flat import Allowed, Rows
from training.descriptor import Bytes, Floats

_CHUNK, _QUERIES = 1 << 18, 64  # rows and queries that are taken at a time
_SHARE = 0.8  # of its free memory that descriptors may take; the rest is for products


class TorchBytes:
    """All descriptors, as `FlatBytes`, on a torch device: `cuda`, `cuda:N` or, for tests, `cpu`."""

    def __init__(self, blocks: Iterator[Bytes], rows: int, width: int, device: str) -> None:
        self._bytes = torch.empty((rows, width), dtype=torch.uint8, device=device)
        start = 0
        for block in blocks:
            self._bytes[start : start + len(block)] = torch.from_numpy(np.array(block)).to(device)
            start += len(block)

    @torch.inference_mode()
    def candidates(
        self, weights: Floats, count: int, allowed: Allowed | None
    ) -> tuple[Floats, Rows]:
        """Scores and rows [Q, count], best first; -1: none."""
        device = self._bytes.device
        kept = None if allowed is None else torch.from_numpy(np.array(allowed)).to(device)
        parts = torch.split(torch.from_numpy(np.array(weights)).to(device), _QUERIES)
        scores, rows = zip(*(self._best(part, count, kept) for part in parts), strict=True)
        return torch.cat(scores).cpu().numpy(), torch.cat(rows).cpu().numpy()

    def _best(self, weights: Tensor, count: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
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


def open_on_gpu(
    blocks: Callable[[], Iterator[Bytes]], rows: int, width: int, device: str
) -> TorchBytes | str:
    """Descriptors [rows, width] on `cuda` or `cuda:N`, or why they are not there: they have to fit
    into most of its free memory."""
    try:
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        if rows * width > _SHARE * free:
            return f"{rows:,} descriptors do not fit {device}"
        return TorchBytes(blocks(), rows, width, device)
    except (RuntimeError, AssertionError) as error:  # the latter: torch without CUDA
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"torch fails on {device} ({first})"
