"""The head over stored maps on a GPU: one Triton kernel for the attention, one for the tail.

The int8 maps stay on the GPU where they fit; else they stream from pinned memory, the next chunk
while this one is computed. With TRITON_INTERPRET=1 all of it runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

import copy
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
from indexer.triton_tail import Tail, TailWeights, fits
from training.models.conditioned import ConditionedEmbedder
from training.models.embedder import FoldableEmbedder
from training.models.folded_head import Scratch
from training.schema import Condition

CHUNK = 4096  # images copied to the GPU at a time

_RESIDENT_CHUNK = 32_768  # images at a time where nothing is copied: few launches, 32 MB of V_s

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
    rows: NDArray[np.int64] | None,
    device: str,
    chunk: int | None = None,
) -> Iterator[list[Tensor]]:
    """Embeddings [<= chunk, d] float32 of the next rows, one tensor a condition, on `device`.

    Args:
        store: the index.
        model: on `device`, in float32.
        conditions: label states [K] each.
        rows: rows of the index [M]; all of them if None.
        device: a GPU.
        chunk: images at a time, at least 1; what is fastest by default.
    """
    count = len(store) if rows is None else len(rows)
    resident = _resident(store, device, everything=2 * count >= len(store))
    chunk = chunk or (CHUNK if resident is None else _RESIDENT_CHUNK)
    heads = [_Head(model, condition, device, min(chunk, count)) for condition in conditions]
    if resident is None:
        rows = np.arange(count) if rows is None else rows
        for part in stream(store, rows, device, chunk):
            yield _vectors(heads, part, torch.arange(len(part.maps), device=device))
        return
    if rows is None:
        wanted = torch.arange(count, device=device)
    else:
        store.locate(rows)  # checks them
        wanted = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
    for start in range(0, count, chunk):
        yield _vectors(heads, resident, wanted[start : start + chunk])


class _Head:
    """A model's head under one condition, and what computes its second half: the kernel, or torch
    where that is not for it.

    Folding is a hundred operations on a few numbers, so it is done in main memory.

    Args:
        model: on the device.
        condition: label states [K].
        device: a GPU.
        rows: the longest chunk.
    """

    def __init__(
        self, model: FoldableEmbedder, condition: Condition, device: str, rows: int
    ) -> None:
        kept = _PREPARED.setdefault(model, {})
        if device not in kept:
            kept[device] = _Prepared(model)
        prepared = kept[device]
        state = torch.from_numpy(np.asarray(condition, dtype=np.float32))
        self._folded = prepared.head.fold(state)
        self._tail: Tail | None = None
        if fits(self._folded):
            prepared.weights = prepared.weights or TailWeights(self._folded, device)
            self._tail = Tail(self._folded, prepared.weights)
            self.query = self._tail.query
        else:
            self._folded = model.fold(state.to(device))
            query = self._folded.query
            self.query = None if query is None else query.float()[None]
        self.squash, self.largest = self._folded.squash, self._folded.pooling == "max"
        self._rows = rows
        self._scratch: Scratch | None = None

    def tail(self, attended: Tensor) -> Tensor:
        """V_s [M, d] to embeddings [M, d]."""
        out = torch.empty_like(attended)
        if self._tail is not None:
            return self._tail(attended, out)
        self._scratch = self._scratch or Scratch(self._rows, attended)
        with _tensor_cores(attended.is_cuda):
            self._folded.tail(attended, out, self._scratch)
        return out


class _Prepared:
    """What all conditions share: the model without its backbone in main memory, and its weights as
    the kernel reads them.

    Args:
        model: whose weights do not change any more.
    """

    def __init__(self, model: FoldableEmbedder) -> None:
        without: dict[int, object] = {}
        if isinstance(model, ConditionedEmbedder):
            without[id(model.backbone)] = torch.nn.Identity()
        self.head = copy.deepcopy(model, without)
        if isinstance(self.head, torch.nn.Module):
            self.head.cpu()
        self.weights: TailWeights | None = None


_PREPARED: WeakKeyDictionary[FoldableEmbedder, dict[str, _Prepared]] = WeakKeyDictionary()


def _vectors(heads: Sequence[_Head], maps: DeviceMaps, rows: Tensor) -> list[Tensor]:
    out: list[Tensor] = []
    for first in range(0, len(heads), CONDITIONS):
        some = heads[first : first + CONDITIONS]
        queries = [head.query for head in some if head.query is not None]
        attended = attend(
            maps.maps,
            maps.map_scales,
            maps.keys,
            maps.key_scales,
            rows,
            torch.cat(queries) if queries else None,
            some[0].squash,  # of the model, as the pooling is
            some[0].largest,
            len(some),
        )
        out += [head.tail(part) for head, part in zip(some, attended, strict=True)]
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


def resident(store: Store, device: str) -> bool:
    """Whether all maps are on the device, or fit there."""
    return device in _RESIDENT.get(store, {}) or _fits(store, device)


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
