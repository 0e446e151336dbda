"""The head over stored maps on a GPU: a Triton kernel for the attention, torch for the tail.

The int8 maps stay on the GPU where they fit; else they stream from pinned memory, the next chunk
while this one is computed. With TRITON_INTERPRET=1 all of it runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.quantise import QuantisedMaps
from indexer.store import Store
from indexer.triton_attention import CONDITIONS, attend
from training.models.embedder import FoldableEmbedder
from training.models.folded_head import FoldedHead, Scratch
from training.schema import Condition

CHUNK = 4096  # images at a time: 205 MB of maps to copy, and 8 MB of V_s, in the GPU's cache

_KEPT_FREE = 0.25  # of the GPU's free memory is left to others when maps move in


@dataclass(frozen=True)
class DeviceMaps:
    """Stored maps of M images on a device: int8 [M, L, d] with float32 scales [M, L]."""

    maps: Tensor
    map_scales: Tensor
    keys: Tensor
    key_scales: Tensor


_RESIDENT: WeakKeyDictionary[Store, dict[str, DeviceMaps]] = WeakKeyDictionary()


def embed_chunks(
    store: Store,
    model: FoldableEmbedder,
    conditions: Sequence[Condition],
    rows: NDArray[np.int64],
    device: str,
    chunk: int,
) -> Iterator[list[Tensor]]:
    """Embeddings [<= chunk, d] float32 of the next rows, one tensor a condition, on `device`.

    Args:
        store: the index.
        model: on `device`, in float32.
        conditions: label states [K] each.
        rows: rows of the index [M].
        device: a GPU.
        chunk: images at a time, at least 1.
    """
    heads = [
        model.fold(torch.from_numpy(np.asarray(c, dtype=np.float32)).to(device)) for c in conditions
    ]
    resident = _resident(store, device, everything=2 * len(rows) >= len(store))
    scratch = Scratch(min(chunk, len(rows)), torch.empty(1, store.dim, device=device))
    if resident is not None:
        store.locate(rows)  # checks them
        wanted = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        for start in range(0, len(rows), chunk):
            yield _vectors(heads, resident, wanted[start : start + chunk], scratch)
        return
    for part in stream(store, rows, device, chunk):
        yield _vectors(heads, part, torch.arange(len(part.maps), device=device), scratch)


def _vectors(
    heads: Sequence[FoldedHead], maps: DeviceMaps, rows: Tensor, scratch: Scratch
) -> list[Tensor]:
    out: list[Tensor] = []
    for first in range(0, len(heads), CONDITIONS):
        some = heads[first : first + CONDITIONS]
        queries = [head.query.float() for head in some if head.query is not None]
        attended = attend(
            maps.maps,
            maps.map_scales,
            maps.keys,
            maps.key_scales,
            rows,
            torch.stack(queries) if queries else None,
            some[0].squash,  # of the model, as the pooling is
            some[0].pooling == "max",
            len(some),
        )
        with _tensor_cores(attended.is_cuda):
            out += [
                head.tail(part, torch.empty_like(part), scratch)
                for head, part in zip(some, attended, strict=True)
            ]
    return out


def stream(store: Store, rows: NDArray[np.int64], device: str, chunk: int) -> Iterator[DeviceMaps]:
    """Maps of the next rows on `device`; those after them are being copied meanwhile.

    A part is overwritten when the one after the next is asked for.
    """
    cuda = torch.device(device).type == "cuda"
    side = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
    buffers = [_Buffer(store, min(chunk, len(rows)), device) for _ in range(2)]
    parts = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
    for number in range(len(parts) + 1):
        if number < len(parts):
            buffers[number % 2].fill(store, parts[number], side)
        if number:
            yield buffers[(number - 1) % 2].ready(len(parts[number - 1]))


class _Buffer:
    """Room for a chunk in pinned memory and on the device."""

    def __init__(self, store: Store, rows: int, device: str) -> None:
        cells = store.grid[0] * store.grid[1]
        pinned = torch.device(device).type == "cuda"
        shapes = [((rows, cells, store.dim), torch.int8), ((rows, cells), torch.float32)] * 2
        self._host = [torch.empty(s, dtype=kind, pin_memory=pinned) for s, kind in shapes]
        self._device = [torch.empty(s, dtype=kind, device=device) for s, kind in shapes]
        self._copied = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]

    def fill(self, store: Store, rows: NDArray[np.int64], side: torch.cuda.Stream | None) -> None:
        """Read rows of the store and start to copy them, on the stream `side` if there is one."""
        if self._copied is not None:
            self._copied.synchronize()  # the copy before may still read the host's memory
        values, scales, key_values, key_scales = (host[: len(rows)].numpy() for host in self._host)
        store.quantised(
            rows, out=(QuantisedMaps(values, scales), QuantisedMaps(key_values, key_scales))
        )
        if side is None or self._copied is None:
            for own, host in zip(self._device, self._host, strict=True):
                own[: len(rows)] = host[: len(rows)]
            return
        side.wait_stream(torch.cuda.current_stream(side.device))  # it still computes on the last
        with torch.cuda.stream(side):
            for own, host in zip(self._device, self._host, strict=True):
                own[: len(rows)].copy_(host[: len(rows)], non_blocking=True)
            self._copied.record(side)

    def ready(self, rows: int) -> DeviceMaps:
        """What was filled, once it is there."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device[0].device).wait_event(self._copied)
        return DeviceMaps(*(own[:rows] for own in self._device))


def _resident(store: Store, device: str, everything: bool) -> DeviceMaps | None:
    """All maps on the device: if they are there already, or are wanted now and fit."""
    kept = _RESIDENT.setdefault(store, {})
    if device not in kept and everything and _fits(store, device):
        kept[device] = _upload(store, device)
    return kept.get(device)


def _fits(store: Store, device: str) -> bool:
    if torch.device(device).type != "cuda":
        return True
    cells = store.grid[0] * store.grid[1]
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * len(store) * cells * (store.dim + 4) < (1 - _KEPT_FREE) * free


def _upload(store: Store, device: str) -> DeviceMaps:
    cells = store.grid[0] * store.grid[1]
    values = ((len(store), cells, store.dim), torch.int8)
    scales = ((len(store), cells), torch.float32)
    whole = DeviceMaps(
        *(torch.empty(s, dtype=t, device=device) for s, t in (values, scales, values, scales))
    )
    start = 0
    for part in stream(store, np.arange(len(store)), device, CHUNK):
        stop = start + len(part.maps)
        whole.maps[start:stop], whole.map_scales[start:stop] = part.maps, part.map_scales
        whole.keys[start:stop], whole.key_scales[start:stop] = part.keys, part.key_scales
        start = stop
    return whole


@contextmanager
def _tensor_cores(wanted: bool) -> Iterator[None]:
    """TF32 products on a GPU: ten bits keep the cosine of Z above 0.9999."""
    before = torch.get_float32_matmul_precision()
    if wanted:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if wanted:
            torch.set_float32_matmul_precision(before)
