"""The query layer: an open index and its model, kept warm, answering queries.

    picture --encode--> chances, nuance --and the request--> query vector --search--> hits

Nothing is encoded for a request but its picture; every request is one search of one index.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encode.onnx import OnnxModel, open_onnx
from indexer.search.index import SearchIndex, open_search
from indexer.store.manifest import MANIFEST_NAME, committed_versions
from indexer.store.store import Store, open_store
from retrieval.hits import (
    Found,
    Hit,
    QueryResult,
    Rows,
    choose_hits,
    describe,
    first_fetch,
    judged,
    likely_values,
)
from retrieval.picture import Encoder, Picture
from retrieval.query_vector import CANDIDATES, Asked, Formula, formula_of
from retrieval.request import (
    QueryImage,
    Request,
    Terms,
    allowed_rows,
    parts_by_labels,
    resolve,
)
from training.checkpoint import onnx_name
from training.descriptor import Floats
from training.device import choose_device
from training.errors import DataError, UsageError
from training.images.read import PictureSource, version_of
from training.schema import Schema

_BATCH = 64  # requests that are encoded and searched for together
_MASK_BYTES = 64 * 2**20  # of filters' answers that are kept, a byte an image each
_CHUNK = 1 << 16  # images that are scored at a time

Allowed = NDArray[np.bool_] | None
"""Images that are searched, [M] bool; None: all."""

Ranked = tuple[Rows, Floats]
"""Images best first, ties by row, and their scores."""


@dataclass(frozen=True)
class _Query:
    """A request on its way: what it means, its picture, and the images that it may find."""

    request: Request
    terms: Terms
    picture: Picture
    formula: Formula
    allowed: Allowed

    @property
    def by_labels(self) -> bool:
        """Whether known labels settle something that is asked."""
        return self.request.trust_labels and bool(self.terms.asked.named)


class Engine:
    """An index that is open for queries; see `Engine.open`. Threads may share it."""

    def __init__(self, store: Store, model: OnnxModel, index: SearchIndex) -> None:
        self.store, self.model, self.index = store, model, index
        self._open: Callable[[], Engine] = lambda: Engine.open(store.folder)
        self._seen: tuple[int, int] | None = None  # of the manifest; None: nobody looks
        self._encode = Encoder(model.forward, store.preprocessing)
        kept = max(1, _MASK_BYTES // max(1, len(store)))
        self._passing = lru_cache(kept)(partial(allowed_rows, store))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        device: str = "auto",
        verify: bool = True,
        root: str | Path | None = None,
        reload: bool = False,
    ) -> Engine:
        """Open a folder that `retrieve build-index` wrote, and the model inside it.

        Args:
            folder: may be relative; a later `os.chdir` changes nothing.
            device: `auto`, `cpu`, `cuda` or `cuda:N`, which searches; the CPU encodes pictures.
            verify: check each file before it is used.
            root: where the gallery's pictures are now; where they were when it was built.
            reload: before each query look whether there is a newer version; see `refresh`.

        Raises:
            DataError: there is no finished index.
            CorruptStoreError: a file is damaged.
            ResourceError: onnxruntime is missing, or faiss where there are inverted lists.
        """
        if not os.path.isdir(folder):
            raise DataError(
                f"no index in {folder}: that is no folder; build one with: "
                "retrieve build-index --dataset ..."
            )
        seen = version_of(Path(folder) / MANIFEST_NAME)
        store = open_store(Path(folder).absolute(), verify)
        if root is not None:
            store.root = Path(root).absolute()
        if not store.root.is_dir():
            gone = f"the gallery's folder {store.root} is not there; --root tells where it is now"
            store.remarks += (gone,)
        name = onnx_name(store.manifest.identity.precision)
        with ThreadPoolExecutor(1) as beside:  # its libraries load while those of search do
            model = beside.submit(lambda: open_onnx(store.read_model(name), str(folder)))
            index = open_search(store, choose_device(device).device)
            engine = cls(store, model.result(), index)
        engine._open = partial(cls.open, store.folder, device, verify, root, reload)
        engine._seen = seen if reload else None
        return engine

    def refresh(self) -> bool:
        """Go on with the index's current version, if it is another; whether it was.

        Queries under way end with the version that they began with; raises as `open`.
        """
        if self._seen is not None:
            self._seen = version_of(self.store.folder / MANIFEST_NAME)
        newest = next(committed_versions(self.store.folder), None)
        if newest is None or newest.manifest == self.store.manifest:
            return False
        self.__dict__.update(vars(self._open()))  # at once, for whoever copies it
        return True

    @property
    def schema(self) -> Schema:
        """Attributes and values that can be named."""
        return self.store.schema

    def query(self, request: Request) -> QueryResult:
        """Find the gallery images that are like a picture and have the named values.

        Raises:
            UsageError: an unknown, repeated or contradictory name, or a number out of its range.
            DataError: the image cannot be read.
        """
        return self.query_many([request])[0]

    def query_many(self, requests: Sequence[Request]) -> list[QueryResult]:
        """Answer many requests: pictures are encoded, and vectors searched for, in batches.

        Raises as `query`, errors of names before any work.
        """
        if self._seen is not None and version_of(self.store.folder / MANIFEST_NAME) != self._seen:
            self.refresh()
        return copy(self)._answers(requests)  # of one version, whatever `refresh` does meanwhile

    def _answers(self, requests: Sequence[Request]) -> list[QueryResult]:
        resolved = [self._resolve(request) for request in requests]
        out = []
        for start in range(0, len(requests), _BATCH):
            some = slice(start, start + _BATCH)
            pictures = self._pictures([request.image for request in requests[some]])
            asked = zip(requests[some], resolved[some], pictures, strict=True)
            queries = [self._query(*each) for each in asked]
            found = self._first(queries)
            out += [self._answer(*each) for each in zip(queries, found, strict=True)]
        return out

    def encode(self, image: PictureSource) -> Picture:
        """What the model sees in one picture, for `Request`; raises as `open_picture`."""
        return self._encode([image])[0]

    def _resolve(self, request: Request) -> Terms:
        terms = resolve(self.schema, self.store.payload, request)
        if request.one_per_item and self.store.items() is None:
            raise UsageError(
                f"the index in {self.store.folder} knows no items; one hit an item needs a "
                "catalogue with a column `item`"
            )
        return terms

    def _pictures(self, images: Sequence[QueryImage]) -> list[Picture]:
        """The pictures, encoded where they are not yet."""
        encoded = iter(self._encode([i for i in images if not isinstance(i, Picture)]))
        return [image if isinstance(image, Picture) else next(encoded) for image in images]

    def _query(self, request: Request, terms: Terms, picture: Picture) -> _Query:
        allowed = self._passing(terms.where) if terms.where else None
        return _Query(request, terms, picture, self._formula(picture, terms.asked), allowed)

    def _formula(self, picture: Picture, asked: Asked) -> Formula:
        return formula_of(self.store.layout, self.schema, picture.chances, picture.nuance, asked)

    def _first(self, queries: Sequence[_Query]) -> list[Ranked]:
        """The best images of each, those of one filter found in one search."""
        groups: dict[tuple[int, *tuple[object, ...]], list[int]] = defaultdict(list)
        for number, one in enumerate(queries):
            alone = number if one.by_labels else None
            fetch = first_fetch(one.request, len(self.store))
            key = fetch, one.terms.where, alone, one.formula.linear, one.request.exact
            groups[key].append(number)
        out: dict[int, Ranked] = {}
        for (fetch, *_), numbers in groups.items():
            out |= zip(numbers, self._search([queries[n] for n in numbers], fetch), strict=True)
        return [out[number] for number in range(len(queries))]

    def _search(self, queries: Sequence[_Query], k: int) -> list[Ranked]:
        """The best k images of queries of one group, fewer where there are no more."""
        first = queries[0]
        if first.by_labels:
            return [self._by_labels(first, k)]
        formulas = [one.formula for one in queries]
        if not first.formula.linear:
            return self._by_formula(formulas, k, first)
        vectors = [formula.vector for formula in formulas]
        weights = np.stack([vector.weights for vector in vectors])
        found, scores = self.index.search(weights, k, first.allowed, first.request.exact)
        return [
            (rows[rows >= 0], own[rows >= 0] + np.float32(vector.constant))
            for rows, own, vector in zip(found, scores, vectors, strict=True)
        ]

    def _by_formula(self, formulas: Sequence[Formula], k: int, like: _Query) -> list[Ranked]:
        """By formulas that are more than a vector; exactness and filter as of the query."""
        if like.request.exact:
            whole = np.ones(len(self.store), bool) if like.allowed is None else like.allowed
            every = np.flatnonzero(whole)
            return [self._best(formula, k, every) for formula in formulas]
        # Where no image has all that is named, likeness alone decides.
        sought = [vector for one in formulas for vector in (one.vector, one.alike)]
        weights = np.stack([vector.weights for vector in sought])
        found = self.index.candidates(weights, max(k, CANDIDATES), like.allowed)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [
            self._best(formula, k, _united(*pair))
            for formula, pair in zip(formulas, pairs, strict=True)
        ]

    def _best(self, formula: Formula, k: int, rows: Rows) -> Ranked:
        """The best k of some images, each scored by the formula."""
        parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        scored = [formula.scores(self.store.descriptors_of(part)) for part in parts]
        return _sorted(rows, np.concatenate(scored or [np.zeros(0, np.float32)]), k)

    def _by_labels(self, query: _Query, k: int) -> Ranked:
        """The best k images where known labels settle what is asked: a search a part."""
        asked, rows, scores = query.terms.asked, [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        untrusting = replace(query.request, trust_labels=False)
        parts = parts_by_labels(self.store.states(asked.named), asked.named, query.allowed)
        for known, allowed in parts:
            formula = self._formula(query.picture, replace(asked, known=known))
            part = replace(query, request=untrusting, formula=formula, allowed=allowed)
            ((found, own),) = self._search([part], k)
            rows.append(found)
            scores.append(own)
        return _sorted(np.concatenate(rows), np.concatenate(scores), k)

    def _answer(self, query: _Query, fetched: Ranked) -> QueryResult:
        found, asked = self._choose(query, fetched), query.terms.asked
        image, chances = query.request.image, query.picture.chances
        unknown = np.zeros(self.schema.size, dtype=np.int8)
        return QueryResult(
            image=str(image) if isinstance(image, str | Path) else "image",
            condition=self.schema.describe(query.terms.condition),
            requested=judged(self.schema, asked, unknown, chances),
            predicted=likely_values(self.schema, chances),
            hits=self._hits(query, found) if len(found.rows) else (),
            gallery=len(self.store),
            searched=len(self.store) if query.allowed is None else int(query.allowed.sum()),
            left_out=found.copies,
        )

    def _choose(self, query: _Query, fetched: Ranked) -> Found:
        """What is shown of the best images: no copies of the picture, one an item, a page."""
        items = self.store.items() if query.request.one_per_item else None
        own = None if query.request.include_query else query.picture.digest
        mine = np.frombuffer(own or b"", np.uint8)
        return choose_hits(
            query.request,
            fetched,
            len(self.store),
            lambda k: self._search([query], k)[0],
            None if own is None else lambda rows: (self.store.digests_of(rows) == mine).all(axis=1),
            None if items is None else lambda rows: items[rows],
        )

    def _hits(self, query: _Query, found: Found) -> tuple[Hit, ...]:
        store, rows, items = self.store, found.rows, self.store.items()
        likeness = query.formula.alike.scores(store.descriptors_of(rows)).clip(0, 1)
        described = describe(store, rows, query.terms.asked)
        columns = rows.tolist(), found.scores.clip(0, 1).tolist(), likeness.tolist(), described
        return tuple(
            Hit(
                rank=rank,
                score=score,
                likeness=alike,
                path=store.root / store.paths[row],
                listed=store.paths[row],
                row=row,
                known=known,
                predicted=predicted,
                requested=requested,
                item=None if items is None or items[row] < 0 else int(items[row]),
                payload=store.payload_of(row),
            )
            for rank, (row, score, alike, (known, predicted, requested)) in enumerate(
                zip(*columns, strict=True), query.request.offset + 1
            )
        )


def _united(some: Rows, others: Rows) -> Rows:
    rows = np.sort(np.concatenate([some, others]))  # np.unique is slow to load
    return rows[np.diff(rows, prepend=-1) > 0]


def _sorted(rows: Rows, scores: Floats, k: int) -> Ranked:
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
