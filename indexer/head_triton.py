"""The head over stored maps on a GPU: one Triton kernel for the attention, one for the tail.

    stored maps --attend--> V_s --tail--> Z        many images at a time, under some conditions

Nothing but u is needed of a condition for the pass over the maps, so that starts first, and the
rest of the head is folded while the GPU reads. With TRITON_INTERPRET=1 all of it runs on the CPU,
slowly, for tests.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.device_maps import CHUNK, DeviceMaps, resident_maps, stream
from indexer.store import Store
from indexer.triton_attention import CONDITIONS, attend
from indexer.triton_tail import Tail, TailWeights, fits
from indexer.worker_pool import on_one_core
from training.models.conditioned import ConditionedEmbedder
from training.models.embedder import FoldableEmbedder
from training.models.folded_head import FoldedHead, Scratch
from training.schema import Condition

_RESIDENT_CHUNK = 32_768  # images at a time where nothing is copied: few launches, 32 MB of V_s

_AHEAD = 1 << 28  # bytes of V_s before the first tail: all maps of DARN under one condition


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
    maps = resident_maps(store, device, everything=2 * count >= len(store))
    chunk = chunk or (CHUNK if maps is None else _RESIDENT_CHUNK)
    heads = _Heads(model, conditions, device)
    attended: deque[list[Tensor]] = deque()
    ahead = 0
    if maps is not None:
        ahead = _AHEAD // (min(chunk, count) * store.dim * 4 * len(conditions) or 1)
    for part, own in _parts(store, maps, rows, count, device, chunk):
        attended.append(heads.attend(part, own))
        if len(attended) > ahead:
            yield heads.tail(attended.popleft())
    while attended:
        yield heads.tail(attended.popleft())


def _parts(
    store: Store,
    maps: DeviceMaps | None,
    rows: NDArray[np.int64] | None,
    count: int,
    device: str,
    chunk: int,
) -> Iterator[tuple[DeviceMaps, Tensor]]:
    """Maps on the device, and which of them come next."""
    if maps is None:
        rows = np.arange(count) if rows is None else rows
        for part in stream(store, rows, device, chunk):
            yield part, torch.arange(len(part.maps), device=device)
        return
    if rows is None:
        wanted = torch.arange(count, device=device)
    else:
        store.locate(rows)  # checks them
        wanted = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
    for start in range(0, count, chunk):
        yield maps, wanted[start : start + chunk]


class _Heads:
    """A model's head under some conditions: the attention now, the rest when it is first used.

    Folding is a hundred operations on a few numbers, so it is done in main memory, on one core.

    Args:
        model: on the device.
        conditions: label states [K] each.
        device: a GPU.
    """

    def __init__(
        self, model: FoldableEmbedder, conditions: Sequence[Condition], device: str
    ) -> None:
        kept = _PREPARED.setdefault(model, {})
        if device not in kept:
            kept[device] = _Prepared(model)
        self._prepared, self._model, self._device = kept[device], model, device
        self._states = [torch.from_numpy(np.asarray(c, dtype=np.float32)) for c in conditions]
        fold = self._prepared.head.fold_attention
        folded = on_one_core(lambda: [fold(state) for state in self._states])
        self._squash, self._largest = folded[0].squash, folded[0].pooling == "max"
        queries = [own.query for own in folded if own.query is not None]
        self._queries = torch.stack(queries).float().to(device) if queries else None  # [C, d]
        self._tails: list[Tail | FoldedHead] = []
        self._scratch: Scratch | None = None

    def attend(self, maps: DeviceMaps, rows: Tensor) -> list[Tensor]:
        """V_s [M, d] of some rows [M] under each condition."""
        out: list[Tensor] = []
        for first in range(0, len(self._states), CONDITIONS):
            some = slice(first, first + CONDITIONS)
            out += attend(
                maps.maps,
                maps.map_scales,
                maps.keys,
                maps.key_scales,
                rows,
                None if self._queries is None else self._queries[some],
                self._squash,
                self._largest,
                len(self._states[some]),
            )
        return out

    def tail(self, attended: Sequence[Tensor]) -> list[Tensor]:
        """V_s [M, d] under each condition to embeddings [M, d]; the first chunk is the longest."""
        self._tails = self._tails or on_one_core(self._fold)
        return [self._one(*pair) for pair in zip(self._tails, attended, strict=True)]

    def _one(self, tail: Tail | FoldedHead, attended: Tensor) -> Tensor:
        out = torch.empty_like(attended)
        if isinstance(tail, Tail):
            return tail(attended, out)
        self._scratch = self._scratch or Scratch(len(attended), attended)
        return tail.tail(attended, out, self._scratch)

    def _fold(self) -> list[Tail | FoldedHead]:
        """The second halves: for the kernel, or for torch where they are not for it."""
        return [self._second_half(state) for state in self._states]

    def _second_half(self, state: Tensor) -> Tail | FoldedHead:
        folded = self._prepared.head.fold(state)
        if not fits(folded):
            return self._model.fold(state.to(self._device))
        weights = self._prepared.weights or TailWeights(folded, self._device)
        self._prepared.weights = weights
        return Tail(folded, weights)


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
