"""The query layer: an open index and its model, kept warm, answering queries.

    picture --encode--> chances, nuance --and the request--> query vector --search--> hits

Nothing is encoded for a request but its picture; every request is one search of one index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexer.encode.onnx import OnnxModel, open_onnx
from indexer.hold.held import Held, Outdated
from indexer.hold.local import LocalIndex
from indexer.hold.open import open_held
from indexer.search.index import SearchIndex
from indexer.store.store import Store
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
    resolve,
)
from training.checkpoint import onnx_name
from training.descriptor import Floats
from training.errors import UsageError
from training.images.read import PictureSource
from training.schema import Schema

_TRIES = 3  # to answer while a database is exported to again and again
_BATCH = 64  # requests that are encoded and searched for together
_CHUNK = 1 << 16  # images that are scored at a time

Ranked = tuple[Rows, Floats]
"""Images best first, ties by row, and their scores."""


@dataclass(frozen=True)
class _Query:
    """A request on its way: what it means, its picture, and the images that it may find."""

    request: Request
    terms: Terms
    picture: Picture
    formula: Formula
    allowed: Any  # as `Held` tells images; None: all

    @property
    def by_labels(self) -> bool:
        """Whether known labels settle something that is asked."""
        return self.request.trust_labels and bool(self.terms.asked.named)


class Engine:
    """An index that is open for queries; see `Engine.open`. Threads may share it."""

    def __init__(self, held: Held[Any], model: OnnxModel) -> None:
        self.held, self.model = held, model
        self._open: Callable[[Engine], Engine] = lambda _: Engine.open(held.name)
        self._seen: object = None  # what `Held.look` gave; None: nobody looks
        self._encode = Encoder(model.forward, held.preprocessing)

    @classmethod
    def open(
        cls,
        index: str | Path,
        device: str = "auto",
        verify: bool = True,
        root: str | Path | None = None,
        reload: bool = False,
    ) -> Engine:
        """Open what `retrieve build-index` wrote, and the model inside it.

        Args:
            index: a folder, may be relative; a later `os.chdir` changes nothing. Or the URL of a
                database that `retrieve export` filled; there queries always go on with a newer
                version, since it holds one.
            device: `auto`, `cpu`, `cuda` or `cuda:N`, which searches; the CPU encodes pictures.
            verify: check each file before it is used.
            root: where the gallery's pictures are now; where they were when it was built.
            reload: before each query look whether there is a newer version; see `refresh`.

        Raises:
            DataError: there is no finished index.
            CorruptStoreError: a file is damaged.
            ResourceError: onnxruntime is missing, or faiss where there are inverted lists; a
                database does not answer.
        """
        return cls._opened(index, device, verify, root, reload, None)

    @classmethod
    def _opened(
        cls,
        index: str | Path,
        device: str,
        verify: bool,
        root: str | Path | None,
        reload: bool,
        before: Engine | None,
    ) -> Engine:
        """As `open`; what was open `before` has the model, if it is in a database and the same."""
        held = open_held(index, device, verify)
        if root is not None:
            held.root = Path(root).absolute()
        if not held.root.is_dir():
            gone = f"the gallery's folder {held.root} is not there; --root tells where it is now"
            held.remarks += (gone,)
        name = onnx_name(held.precision)
        if before is not None and not isinstance(held, LocalIndex) and before.encodes_as(held):
            engine = cls(held, before.model)
            engine._encode = before._encode
        else:
            with ThreadPoolExecutor(1) as beside:  # its libraries load while those of search do
                model = beside.submit(lambda: open_onnx(held.read_model(name), str(index)))
                held.ready()
                engine = cls(held, model.result())
        engine._open = partial(cls._opened, held.name, device, verify, root, reload)
        engine._seen = held.seen if reload else None
        return engine

    def refresh(self) -> bool:
        """Go on with the index's current version, if it is another; whether it was.

        Queries under way end with the version that they began with; raises as `open`.
        """
        if self._seen is not None:
            self._seen = self.held.look()
        if not self.held.outdated():
            return False
        self.__dict__.update(vars(self._open(self)))  # at once, for whoever copies it
        return True

    @property
    def schema(self) -> Schema:
        """Attributes and values that can be named."""
        return self.held.schema

    def encodes_as(self, held: Held[Any]) -> bool:
        """Whether its model is that of another index."""
        own = self.held
        same = own.model == held.model and own.preprocessing == held.preprocessing
        return same and own.precision == held.precision

    @property
    def store(self) -> Store:
        """The files of an index that is a folder; UsageError for another."""
        return self._local.store

    @property
    def index(self) -> SearchIndex:
        """What searches an index that is a folder; UsageError for another."""
        return self._local.index

    @property
    def _local(self) -> LocalIndex:
        if not isinstance(self.held, LocalIndex):
            raise UsageError(f"{self.held.name} is no folder")
        return self.held

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
        if self._seen is not None and self.held.look() != self._seen:
            self.refresh()
        for _ in range(_TRIES):
            with suppress(Outdated):  # of one version, whatever `refresh` does meanwhile
                return copy(self).answers(requests)
            self.refresh()
        return copy(self).answers(requests)

    def answers(self, requests: Sequence[Request]) -> list[QueryResult]:
        """Answer by the version that is open, as `query_many`; raises `Outdated` if it is gone."""
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
        terms = resolve(self.schema, self.held.columns, request)
        if request.one_per_item and not self.held.has_items:
            raise UsageError(
                f"the index in {self.held.name} knows no items; one hit an item needs a "
                "catalogue with a column `item`"
            )
        return terms

    def _pictures(self, images: Sequence[QueryImage]) -> list[Picture]:
        """The pictures, encoded where they are not yet."""
        encoded = iter(self._encode([i for i in images if not isinstance(i, Picture)]))
        return [image if isinstance(image, Picture) else next(encoded) for image in images]

    def _query(self, request: Request, terms: Terms, picture: Picture) -> _Query:
        allowed = self.held.passing(terms.where) if terms.where else None
        return _Query(request, terms, picture, self._formula(picture, terms.asked), allowed)

    def _formula(self, picture: Picture, asked: Asked) -> Formula:
        return formula_of(self.held.layout, self.schema, picture.chances, picture.nuance, asked)

    def _first(self, queries: Sequence[_Query]) -> list[Ranked]:
        """The best images of each, those of one filter found in one search."""
        groups: dict[tuple[int, *tuple[object, ...]], list[int]] = defaultdict(list)
        for number, one in enumerate(queries):
            alone = number if one.by_labels else None
            fetch = first_fetch(one.request, len(self.held))
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
        found, scores = self.held.search(weights, k, first.allowed, first.request.exact)
        return [
            (rows[rows >= 0], own[rows >= 0] + np.float32(vector.constant))
            for rows, own, vector in zip(found, scores, vectors, strict=True)
        ]

    def _by_formula(self, formulas: Sequence[Formula], k: int, like: _Query) -> list[Ranked]:
        """By formulas that are more than a vector; exactness and filter as of the query."""
        if like.request.exact:
            every = self.held.rows(like.allowed)
            return [self._best(formula, k, every) for formula in formulas]
        # Where no image has all that is named, likeness alone decides.
        sought = [vector for one in formulas for vector in (one.vector, one.alike)]
        weights = np.stack([vector.weights for vector in sought])
        found = self.held.candidates(weights, max(k, CANDIDATES), like.allowed)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [
            self._best(formula, k, _united(*pair))
            for formula, pair in zip(formulas, pairs, strict=True)
        ]

    def _best(self, formula: Formula, k: int, rows: Rows) -> Ranked:
        """The best k of some images, each scored by the formula."""
        parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        scored = [formula.scores(self.held.descriptors_of(part)) for part in parts]
        return _sorted(rows, np.concatenate(scored or [np.zeros(0, np.float32)]), k)

    def _by_labels(self, query: _Query, k: int) -> Ranked:
        """The best k images where known labels settle what is asked: a search a part."""
        asked, rows, scores = query.terms.asked, [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        untrusting = replace(query.request, trust_labels=False)
        for known, allowed in self.held.parts(asked.named, query.allowed):
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
            gallery=len(self.held),
            searched=len(self.held) if query.allowed is None else self.held.count(query.allowed),
            left_out=found.copies,
        )

    def _choose(self, query: _Query, fetched: Ranked) -> Found:
        """What is shown of the best images: no copies of the picture, one an item, a page."""
        held = self.held
        own = None if query.request.include_query else query.picture.digest
        mine = np.frombuffer(own or b"", np.uint8)
        return choose_hits(
            query.request,
            fetched,
            len(held),
            lambda k: self._search([query], k)[0],
            None if own is None else lambda rows: (held.digests_of(rows) == mine).all(axis=1),
            held.items_of if query.request.one_per_item else None,
        )

    def _hits(self, query: _Query, found: Found) -> tuple[Hit, ...]:
        held, records = self.held, self.held.records(found.rows)
        likeness = query.formula.alike.scores(records.descriptors).clip(0, 1)
        described = describe(held.schema, held.layout, records, query.terms.asked)
        columns = found.rows.tolist(), found.scores.clip(0, 1).tolist(), likeness.tolist()
        stored = records.paths, records.items.tolist(), records.payload
        return tuple(
            Hit(
                rank=rank,
                score=score,
                likeness=alike,
                path=held.root / path,
                listed=path,
                row=row,
                known=known,
                predicted=predicted,
                requested=requested,
                item=None if item < 0 else item,
                payload=dict(payload),
            )
            for rank, (
                (row, score, alike, path, item, payload),
                (known, predicted, requested),
            ) in enumerate(
                zip(zip(*columns, *stored, strict=True), described, strict=True),
                query.request.offset + 1,
            )
        )


def _united(some: Rows, others: Rows) -> Rows:
    rows = np.sort(np.concatenate([some, others]))  # np.unique is slow to load
    return rows[np.diff(rows, prepend=-1) > 0]


def _sorted(rows: Rows, scores: Floats, k: int) -> Ranked:
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
