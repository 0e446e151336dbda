"""The files of a folder: filters are masks over all images, FAISS or a GPU searches."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.hold.held import Filter, Held, Records, remembered
from indexer.search.flat import Allowed, Rows
from indexer.search.index import SearchIndex, open_search
from indexer.store.manifest import MANIFEST_NAME, committed_versions
from indexer.store.store import Store, open_store
from training.descriptor import Bytes, Floats
from training.device import choose_device
from training.errors import DataError
from training.images.read import version_of

_MASK_BYTES = 64 * 2**20  # of filters' answers that are kept, a byte an image each
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class LocalIndex(Held[Allowed]):
    """An open `Store`, searched on a device; images are chosen by masks [M] bool."""

    def __init__(self, store: Store, device: str = "cpu", seen: object = None) -> None:
        self.store, self.seen, self._device = store, seen, device
        manifest = store.manifest
        self.name, self.root, self.remarks = str(store.folder), store.root, store.remarks
        self.schema, self.layout = store.schema, store.layout
        self.preprocessing, self.dataset = store.preprocessing, manifest.dataset
        self.model, self.precision = manifest.identity.model, manifest.identity.precision
        self.content, self.columns = manifest.content, store.payload
        self.has_items = store.items() is not None
        kept = max(1, _MASK_BYTES // max(1, len(store)))
        self._passing = remembered(self._evaluated, kept)

    @cached_property
    def index(self) -> SearchIndex:
        """What searches."""
        return open_search(self.store, choose_device(self._device).device)

    def __len__(self) -> int:
        return len(self.store)

    def look(self) -> object:
        return version_of(self.store.folder / MANIFEST_NAME)

    def outdated(self) -> bool:
        newest = next(committed_versions(self.store.folder), None)
        return newest is not None and newest.manifest != self.store.manifest

    def ready(self) -> None:
        _ = self.index

    def read_model(self, name: str) -> bytes:
        return self.store.read_model(name)

    def passing(self, filters: tuple[Filter, ...]) -> Allowed:
        return self._passing(filters)

    def _evaluated(self, filters: tuple[Filter, ...]) -> Allowed:
        allowed = np.ones(len(self), dtype=bool)
        either: dict[str, Allowed] = {}
        for one in filters:
            passed = self._labelled(one) if one.flat is not None else self._in_column(one)
            if one.operator == "=":
                either[one.name] = either[one.name] | passed if one.name in either else passed
            else:
                allowed &= passed
        for passed in either.values():
            allowed &= passed
        return allowed

    def _labelled(self, one: Filter) -> Allowed:
        assert one.flat is not None
        states = self.store.states([one.flat])[:, 0]
        if one.operator == "=":
            return np.asarray(states == 1)
        passed = np.asarray(states == -1)
        unsaid = states == 0  # another value may be known all the same
        if unsaid.any():
            own = self.schema.slice_of(int(self.schema.attribute_of[one.flat]))
            others = self.store.states(range(own.start, own.stop))
            passed[unsaid] = (others[unsaid] == 1).any(axis=1)
        return passed

    def _in_column(self, one: Filter) -> Allowed:
        column = self.store.payload[one.name]
        if one.operator == "=":
            return column.equal(one.value)
        if one.operator == "!=":
            return ~(column.equal(one.value) | column.equal(""))
        return np.asarray(_COMPARE[one.operator](column.numbers(), float(one.value)))

    def parts(
        self, values: Sequence[int], chosen: Allowed | None
    ) -> Iterator[tuple[dict[int, bool], Allowed]]:
        states = self.store.states(values)
        codes = (states.astype(np.int64) + 1) @ (3 ** np.arange(len(values)))
        for code in np.unique(codes if chosen is None else codes[chosen]).tolist():
            rows = codes == code if chosen is None else (codes == code) & chosen
            own = states[int(rows.argmax())].tolist()
            yield {v: s > 0 for v, s in zip(values, own, strict=True) if s}, rows

    def count(self, chosen: Allowed) -> int:
        return int(chosen.sum())

    def rows(self, chosen: Allowed | None) -> Rows:
        return np.arange(len(self)) if chosen is None else np.flatnonzero(chosen)

    def search(
        self, weights: Floats, k: int, chosen: Allowed | None = None, exact: bool = False
    ) -> tuple[Rows, Floats]:
        return self.index.search(weights, k, chosen, exact)

    def candidates(self, weights: Floats, count: int, chosen: Allowed | None = None) -> list[Rows]:
        return self.index.candidates(weights, count, chosen)

    def descriptors_of(self, rows: Rows) -> Bytes:
        return self.store.descriptors_of(rows)

    def digests_of(self, rows: Rows) -> NDArray[np.uint8]:
        return self.store.digests_of(rows)

    def items_of(self, rows: Rows) -> Rows:
        items = self.store.items()
        return np.full(len(rows), -1) if items is None else items[rows]

    def records(self, rows: Rows) -> Records:
        store = self.store
        return Records(
            store.descriptors_of(rows),
            store.labels_of(rows),
            store.digests_of(rows),
            self.items_of(rows),
            [store.paths[row] for row in rows.tolist()],
            [store.payload_of(row) for row in rows.tolist()],
        )

    def row_of(self, digest: bytes) -> int | None:
        start = 0
        for shard in self.store.shards:
            digests = shard.rows.digests
            near = np.flatnonzero(digests[:, 0] == digest[0])
            same = near[(digests[near] == np.frombuffer(digest, np.uint8)).all(axis=1)]
            if len(same):
                return start + int(same[0])
            start += len(digests)
        return None

    def labelled(self) -> NDArray[np.int64]:
        return self.store.labelled()


def open_local(folder: str | Path, device: str = "cpu", verify: bool = True) -> LocalIndex:
    """Open a folder that `retrieve build-index` wrote; raises as `open_store`."""
    if not os.path.isdir(folder):
        raise DataError(
            f"no index in {folder}: that is no folder; build one with: "
            "retrieve build-index --dataset ..."
        )
    seen = version_of(Path(folder) / MANIFEST_NAME)
    return LocalIndex(open_store(Path(folder).absolute(), verify), device, seen)
