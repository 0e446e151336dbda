"""The views that an engine has at hand: built ahead, warm on disk, or computed and kept.

Computed views are kept in memory by a byte budget, least recently used out first. What is built
on purpose, or because it is asked for again and again, also joins the warm set beside the index.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from indexer.views import NamedCondition, condition_key, named
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


@dataclass(frozen=True)
class _Computed:
    """A view that was computed here, and how long that took."""

    view: View
    seconds: float


class ViewPool:
    """Views of one index by condition. Threads may share it.

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
        self._ahead: dict[str, View] = {}
        self._warm: dict[str, View] = {}  # of those on disk, what was asked for
        self._computed: OrderedDict[str, _Computed] = OrderedDict()
        self._lock = threading.RLock()  # of all of these
        self._computing = threading.Lock()
        self._heads: OrderedDict[str, Callable[[Picture], NDArray[np.float32]]] = OrderedDict()
        self._asked: Counter[str] = Counter()
        self.remarks: dict[str, None] = {}
        """What searches views on a GPU and why, each remark once."""

    @property
    def nbytes(self) -> int:
        """Bytes of the computed views in memory."""
        return sum(computed.view.nbytes for computed in self._computed.values())

    def existing(self, condition: Condition) -> View | None:
        """A condition's view, if there is one: in memory, built ahead, or warm on disk."""
        key = condition_key(condition)
        with self._lock:
            if key in self._computed:
                self._computed.move_to_end(key)
                return self._computed[key].view
            if key in self._ahead:
                return self._ahead[key]
            if key in self._warm:
                self.warm.touch(key)
                return self._warm[key]
            view = open_view(self.store, key)
            if view is not None:
                self._ahead[key] = self._placed(view)
                return view
            view = self.warm.load(key)  # looked for each time: another process may have built it
            if view is not None:
                gone = [other for other in self._warm if not self.warm.has(other)]
                for other in gone:  # held open, they would not leave the disk
                    del self._warm[other]
                self._warm[key] = self._placed(view)
            return view

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
        if keep_on_disk or None in found:
            with self._computing:  # threads that ask for the same wait for it
                found = self._get_or_compute(conditions, keep_on_disk)
        return [view for view in found if view is not None]

    def _get_or_compute(
        self, conditions: Sequence[Condition], keep_on_disk: bool
    ) -> list[View | None]:
        entries = {e.key: e for e in (named(self.store.schema, c) for c in conditions)}
        views = {key: self.existing(entry.condition) for key, entry in entries.items()}
        missing = [entries[key] for key, view in views.items() if view is None]
        if keep_on_disk:
            for key in entries:
                self._save(entries[key])
        if missing:
            views |= self._compute(missing, keep_on_disk)
        return [views[condition_key(condition)] for condition in conditions]

    def _compute(self, missing: Sequence[NamedCondition], keep_on_disk: bool) -> dict[str, View]:
        """Views of conditions that have none, in one pass."""
        self._make_room(len(missing) * view_bytes(len(self.store), self.store.dim))
        started = time.monotonic()
        states = [entry.condition for entry in missing]
        arrays = embed_arrays(self.store, self.model, states, device=self.device)
        seconds = (time.monotonic() - started) / len(missing)
        made: dict[str, View] = {}
        for entry, vectors in zip(missing, arrays, strict=True):
            view = made[entry.key] = self._placed(View(entry.key, entry.name, vectors))
            self._make_room(view.nbytes)
            with self._lock:
                self._computed[entry.key] = _Computed(view, seconds)
            if keep_on_disk:
                self._save(entry)
        return made

    def _make_room(self, needed: int) -> None:
        """Drop the least recently used computed views until so many bytes more are within the
        memory, or none is left."""
        with self._lock:
            while self._computed and self.nbytes + needed > self.memory:
                self._computed.popitem(last=False)

    def _save(self, entry: NamedCondition) -> None:
        """Keep a computed view on disk as well, if it is not there."""
        computed = self._computed.get(entry.key)
        if computed is not None and not self.warm.has(entry.key):
            self.warm.save(entry, computed.view.vectors, computed.seconds)

    def forget(self, condition: Condition) -> bool:
        """Drop a condition's computed view from memory; whether there was one."""
        with self._lock:
            return self._computed.pop(condition_key(condition), None) is not None

    def head(self, condition: Condition) -> Callable[[Picture], NDArray[np.float32]]:
        """What embeds one picture under a condition: Z [d]. The last few are kept."""
        key = condition_key(condition)
        with self._lock:
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
        key = condition_key(condition)
        with self._lock:
            self._asked[key] += times
            return self._asked[key] >= BUILD_AFTER

    def _placed(self, view: View) -> View:
        """The view, searched on the GPU if the engine is on one and that works."""
        if self.device != "cpu":
            from indexer.gpu_index import open_gpu

            vectors = view.vectors  # not the view: it could not be freed

            def open_source() -> CandidateSource | None:
                opened = open_gpu(vectors, self.device, load_faiss())
                self.remarks[opened.remark] = None
                return opened.source

            view.use(open_source)
        return view


def default_memory() -> int:
    """Bytes for computed views: an eighth of the machine's memory, at least 256 MB."""
    return max(1 << 28, half_of_memory() // 4)


def view_bytes(rows: int, dim: int) -> int:
    """Bytes of the vectors of one view."""
    return rows * dim * np.dtype(np.float32).itemsize
