"""Stored maps on a GPU: all of them where they fit, else one chunk while the next is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.quantise import QuantisedMaps
from indexer.store import Store

CHUNK = 4096  # images copied to the GPU at a time

_KEPT_FREE = 0.25  # of the GPU's free memory is left to others when maps move in


@dataclass(frozen=True)
class DeviceMaps:
    """Stored maps of M images on a device: int8 [M, L, d] with float32 scales [M, L]."""

    maps: Tensor
    map_scales: Tensor
    keys: Tensor
    key_scales: Tensor


_RESIDENT: WeakKeyDictionary[Store, dict[str, DeviceMaps]] = WeakKeyDictionary()


def resident(store: Store, device: str) -> bool:
    """Whether all maps are on the device, or fit there."""
    return device in _RESIDENT.get(store, {}) or _fits(store, device)


def resident_maps(store: Store, device: str, everything: bool) -> DeviceMaps | None:
    """All maps on the device: if they are there already, or `everything` is wanted and fits."""
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


def stream(store: Store, rows: NDArray[np.int64], device: str, chunk: int) -> Iterator[DeviceMaps]:
    """Maps of the next rows on `device`; those after them are being copied meanwhile.

    A part is overwritten when the one after the next is asked for.
    """
    cuda = torch.device(device).type == "cuda"
    side = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
    buffers = [_Buffer(store, min(chunk, len(rows)), device) for _ in range(2)]
    parts = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
    try:
        for number in range(len(parts) + 1):
            if number < len(parts):
                buffers[number % 2].fill(store, parts[number], side)
            if number:
                yield buffers[(number - 1) % 2].ready(len(parts[number - 1]))
    finally:  # broken off, a copy may still write to memory that is given back now
        if side is not None:
            torch.cuda.current_stream(device).wait_stream(side)


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
