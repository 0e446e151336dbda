"""The head over stored maps on a CPU: int8 attention in place, then the folded tail, on all cores.

A chunk's V_s stays in the cache of the core that computed it, for the products of the tail.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.numba_attention import attend
from indexer.prefetch import prefetch
from indexer.row_addresses import RowAddresses, row_addresses
from indexer.store import Store
from indexer.worker_pool import on_one_core, worker_pool
from training.models.embedder import FoldableEmbedder
from training.models.folded_head import FoldedHead, Scratch
from training.schema import Condition

_CHUNK = 1 << 18  # numbers of V_s at a time and core, 1 MB; half and twice as many are as fast
_FEWEST = 64  # below, the products of the tail read their weights for too few images
_VECTORS = 8192  # images times conditions of a chunk: bounds its memory
_UNCHECKED = 16  # images at a time that are hashed and then read: 800 KB at 49 x 512
_CONDITIONS_AT_ONCE = 16  # bounds V_s; reading the maps again is little beside so many tails
_AHEAD = 2  # chunks a core that may be finished or waiting


def embed_chunks(
    store: Store,
    model: FoldableEmbedder,
    conditions: Sequence[Condition],
    rows: NDArray[np.int64],
    chunk: int | None = None,
    into: Sequence[NDArray[np.float32]] | None = None,
) -> Iterator[list[Tensor]]:
    """Embeddings [<= chunk, d] float32 of the next rows, one tensor a condition.

    Args:
        store: the index; its maps are read where they lie.
        model: on the CPU, in float32.
        conditions: label states [K] each.
        rows: rows of the index [M].
        chunk: images at a time and core, at least 1; what is fastest by default.
        into: arrays [M, d], one a condition, that the embeddings are written to.
    """
    cores = torch.get_num_threads()
    pool = worker_pool(cores)
    states = [torch.from_numpy(np.asarray(c, dtype=np.float32)) for c in conditions]
    heads = on_one_core(lambda: [model.fold(state) for state in states])
    chunk = chunk or _even(len(rows), max(1, _CHUNK // store.dim), cores)
    chunk = min(chunk, max(_FEWEST, _VECTORS // len(heads)))
    attention = _Attention(store, heads, chunk)
    waiting: deque[Future[list[Tensor]]] = deque()
    try:
        for start in range(0, len(rows), chunk):
            own = rows[start : start + chunk]
            places = row_addresses(store, own)
            prefetch(places, store.grid[0] * store.grid[1] * store.dim, attention.reads_keys)
            wanted = None
            if into is not None:
                wanted = [torch.from_numpy(array[start : start + len(own)]) for array in into]
            waiting.append(pool.submit(attention, places, own, wanted))
            if len(waiting) > _AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:  # the store may be closed after this
            if not future.cancel():
                future.exception()


def _even(rows: int, most: int, cores: int) -> int:
    """Rows a chunk, at most `most`, so that all cores are done at about the same time."""
    rounds = max(1, -(-rows // (most * cores)))
    return max(min(_FEWEST, most), -(-rows // (rounds * cores)))


class _Attention:
    """All conditions for one chunk, on one core."""

    def __init__(self, store: Store, heads: Sequence[FoldedHead], chunk: int) -> None:
        self._heads, self._chunk, self._dim = heads, chunk, store.dim
        self._cells = store.grid[0] * store.grid[1]
        self._check, self._known = store.check_rows, store.checked
        self._local = threading.local()
        self.reads_keys = heads[0].attention.query is not None

    def __call__(
        self, places: RowAddresses, rows: NDArray[np.int64], into: Sequence[Tensor] | None
    ) -> list[Tensor]:
        """Addresses of rows [M], and the rows -> embeddings [M, d] under each condition."""
        if into is None:
            into = [torch.empty(len(rows), self._dim) for _ in self._heads]
        out: list[Tensor] = []
        for first in range(0, len(self._heads), _CONDITIONS_AT_ONCE):
            part = slice(first, first + _CONDITIONS_AT_ONCE)
            out += self._some(places, rows, self._heads[part], into[part])
        return out

    def _some(
        self,
        places: RowAddresses,
        rows: NDArray[np.int64],
        heads: Sequence[FoldedHead],
        into: Sequence[Tensor],
    ) -> list[Tensor]:
        attended, scratch = self._memory(len(heads), len(places))
        queries = np.stack([_query(head, self._dim) for head in heads])
        for own in self._blocks(rows, len(heads)):
            self._check(rows[own])
            attend(
                places.maps[own],
                places.map_scales[own],
                places.keys[own],
                places.key_scales[own],
                self._cells,
                queries,
                not self.reads_keys,
                heads[0].attention.squash,
                heads[0].attention.pooling == "max",
                attended[:, own],
            )
        with torch.inference_mode():
            return [
                head.tail(torch.from_numpy(part), own, scratch)
                for head, part, own in zip(heads, attended, into, strict=True)
            ]

    def _blocks(self, rows: NDArray[np.int64], conditions: int) -> Iterator[slice]:
        """All rows at once; while they are not yet checked few, still in the cache when they are
        read again (V_s of several conditions is contiguous only as a whole)."""
        step = len(rows) if conditions > 1 or self._known(rows) else _UNCHECKED
        yield from (slice(start, start + step) for start in range(0, len(rows), max(1, step)))

    def _memory(self, conditions: int, rows: int) -> tuple[NDArray[np.float32], Scratch]:
        """This thread's memory for V_s [C, M, d], and its scratch."""
        local = self._local
        if not hasattr(local, "attended"):
            most = min(len(self._heads), _CONDITIONS_AT_ONCE)
            local.attended = np.empty(most * self._chunk * self._dim, dtype=np.float32)
            local.scratch = Scratch(self._chunk, torch.empty(1, self._dim))
        attended: NDArray[np.float32] = local.attended[: conditions * rows * self._dim]
        scratch: Scratch = local.scratch
        return attended.reshape(conditions, rows, self._dim), scratch


def _query(head: FoldedHead, dim: int) -> NDArray[np.float32]:
    if head.attention.query is None:
        return np.zeros(dim, dtype=np.float32)
    query: NDArray[np.float32] = head.attention.query.float().numpy()
    return query
