"""The views that an engine has at hand: built ahead, warm on disk, or computed and kept.

Computed views are kept in memory by a byte budget, least recently used out first. What is built
on purpose, or because it is asked for again and again, also joins the warm set beside the index.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.exact_search import CandidateSource
from indexer.faiss_module import load_faiss
from indexer.head import embed_arrays
from indexer.index_choice import half_of_memory
from indexer.store import Store
from indexer.view import View, open_view
from indexer.views import condition_key, named
from indexer.warm_views import WarmViews
from indexer.worker_pool import on_one_core
from retrieval.picture import Picture, embed_folded
from retrieval.picture_head import PictureHead
from training.models.m2fashion import M2Fashion
from training.schema import Condition

BUILD_AFTER = 3
"""Asked for so many times, a condition gets its view."""

_HEADS = 64  # folded heads that are kept, some kilobytes each

PASS = 16
"""Conditions that are computed in one pass over the store, at most."""


class ViewPool:
    """Views of one index by condition.

    Args:
        store: the index.
        model: its model, on `device`.
        device: where the head runs.
        memory: bytes of computed views that are kept; the one in use is always.
        warm: the views that queries have left on disk.
    """

    def __init__(
        self, store: Store, model: M2Fashion, device: str, memory: int, warm: WarmViews
    ) -> None:
        self.store, self.model, self.device, self.memory = store, model, device, memory
        self.warm = warm
        self._ahead: dict[str, View | None] = {}
        self._computed: OrderedDict[str, View] = OrderedDict()
        self._heads: OrderedDict[str, Callable[[Picture], NDArray[np.float32]]] = OrderedDict()
        self._asked: Counter[str] = Counter()
        self.remarks: dict[str, None] = {}
        """What searches views on a GPU and why, each remark once."""

    @property
    def nbytes(self) -> int:
        """Bytes of the computed views in memory."""
        return sum(view.nbytes for view in self._computed.values())

    def existing(self, condition: Condition) -> View | None:
        """A condition's view, if there is one: in memory, built ahead, or warm on disk."""
        key = condition_key(condition)
        if key in self._computed:
            self._computed.move_to_end(key)
            return self._computed[key]
        if key not in self._ahead:
            view = open_view(self.store, key) or self.warm.load(key)
            self._ahead[key] = None if view is None else self._placed(view)
        return self._ahead[key]

    def get(self, condition: Condition) -> View:
        """A condition's view, computed from the stored maps if there is none."""
        return self.get_all([condition])[0]

    def get_all(self, conditions: Sequence[Condition], keep_on_disk: bool = False) -> list[View]:
        """Views of several conditions; those that are missing are computed in one pass.

        Args:
            conditions: label states [K] each.
            keep_on_disk: whether what is computed joins the warm set.
        """
        found = [self.existing(condition) for condition in conditions]
        entries = [named(self.store.schema, c) for c in conditions]
        missing = {
            entry.key: entry for entry, view in zip(entries, found, strict=True) if view is None
        }
        made: dict[str, View] = {}
        if missing:
            started = time.monotonic()
            states = [entry.condition for entry in missing.values()]
            arrays = embed_arrays(self.store, self.model, states, device=self.device)
            seconds = (time.monotonic() - started) / len(missing)
            for entry, vectors in zip(missing.values(), arrays, strict=True):
                made[entry.key] = self._keep(self._placed(View(entry.key, entry.name, vectors)))
                if keep_on_disk:
                    self.warm.save(entry, vectors, seconds)
        return [
            made[entry.key] if view is None else view
            for entry, view in zip(entries, found, strict=True)
        ]

    def forget(self, condition: Condition) -> bool:
        """Drop a condition's computed view from memory; whether there was one."""
        return self._computed.pop(condition_key(condition), None) is not None

    def head(self, condition: Condition) -> Callable[[Picture], NDArray[np.float32]]:
        """What embeds one picture under a condition: Z [d]. The last few are kept."""
        key = condition_key(condition)
        if key not in self._heads:
            while len(self._heads) >= _HEADS:
                self._heads.popitem(last=False)
            state = torch.from_numpy(condition).float().to(self.device)
            folded = on_one_core(lambda: self.model.fold(state))
            on_cpu = self.device == "cpu"
            self._heads[key] = PictureHead(folded) if on_cpu else partial(embed_folded, folded)
        self._heads.move_to_end(key)
        return self._heads[key]

    def embed(self, picture: Picture, conditions: Sequence[Condition]) -> NDArray[np.float32]:
        """Z of one picture under several conditions, [C, d]."""
        if self.device == "cpu":
            return np.stack([self.head(condition)(picture) for condition in conditions])
        return picture.embed(self.model, conditions)  # all at once: few calls for a GPU

    def portions(self, conditions: Sequence[Condition]) -> Iterator[Sequence[Condition]]:
        """Conditions, so many at a time as may be computed in one pass within the memory."""
        size = max(1, min(PASS, self.memory // max(view_bytes(len(self.store), self.store.dim), 1)))
        for start in range(0, len(conditions), size):
            yield conditions[start : start + size]

    def asked(self, condition: Condition, times: int = 1) -> bool:
        """Count that a condition without a view was asked for; whether it is worth one now."""
        self._asked[condition_key(condition)] += times
        return self._asked[condition_key(condition)] >= BUILD_AFTER

    def _placed(self, view: View) -> View:
        """The view, searched on the GPU if the engine is on one and that works."""
        if self.device != "cpu":
            from indexer.gpu_index import open_gpu

            def open_source() -> CandidateSource | None:
                opened = open_gpu(view.vectors, self.device, load_faiss())
                self.remarks[opened.remark] = None
                return opened.source

            view.use(open_source)
        return view

    def _keep(self, view: View) -> View:
        while self._computed and self.nbytes + view.nbytes > self.memory:
            self._computed.popitem(last=False)
        self._computed[view.key] = view
        return view


def default_memory() -> int:
    """Bytes for computed views: an eighth of the machine's memory, at least 256 MB."""
    return max(1 << 28, half_of_memory() // 4)


def view_bytes(rows: int, dim: int) -> int:
    """Bytes of the vectors of one view."""
    return rows * dim * np.dtype(np.float32).itemsize
