"""The query layer: an open index and its model, kept warm, answering queries.

    picture --encode--> chances, nuance --and the request--> query vector --search--> hits

Nothing is encoded for a request but its picture; every request is one search of one index.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.device import choose_device
from indexer.faiss_module import load_faiss
from indexer.indexable import check_indexable
from indexer.search import SearchIndex, open_search
from indexer.store import Store, open_store
from retrieval.candidates import Found, Rows, choose_hits, first_fetch
from retrieval.describe import describe_hits, judged, likely_values
from retrieval.filters import Filter, Filters, allowed_rows
from retrieval.hits import QueryResult
from retrieval.picture import Encoder, Picture
from retrieval.query_vector import CANDIDATES, Formula, formula_of
from retrieval.recent import Recent
from retrieval.request import QueryImage, Request, Terms, resolve
from retrieval.trusted_labels import parts_by_labels
from training.checkpoint import load_checkpoint
from training.descriptor import Floats
from training.errors import DataError, UsageError
from training.models.m2fashion import M2Fashion
from training.schema import Schema

_BATCH = 64  # requests that are encoded and searched for together
_MASK_BYTES = 64 * 2**20  # of filters' answers that are kept, a byte an image each

Allowed = NDArray[np.bool_] | None
"""Images that are searched, [M] bool; None: all."""

_CHUNK = 1 << 16  # images that are scored at a time


@dataclass(frozen=True)
class _Asked:
    """A request on its way: what it means, its picture, and the images that it may find."""

    request: Request
    terms: Terms
    picture: Picture
    formula: Formula
    allowed: Allowed
    exact: bool

    @property
    def by_labels(self) -> bool:
        """Whether known labels settle something that is asked."""
        return self.request.trust_labels and bool(self.terms.named)


class Engine:
    """An index that is open for queries. Use `Engine.open`. Threads may share it.

    Args:
        store: the open index.
        model: its model, in inference mode, on `device`.
        index: what searches the store's descriptors.
        device: where the model runs.
    """

    def __init__(self, store: Store, model: M2Fashion, index: SearchIndex, device: str) -> None:
        self.store, self.model, self.index, self.device = store, model, index, device
        self._encode = Encoder(model, store.preprocessing, device)
        self._masks: Recent[tuple[Filter, ...], NDArray[np.bool_]] = Recent(
            max(1, _MASK_BYTES // max(1, len(store)))
        )

    @classmethod
    def open(cls, folder: str | Path, device: str = "auto", verify: bool = True) -> Engine:
        """Open an index folder and the model inside it.

        Args:
            folder: what `retrieve build-index` wrote.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            verify: check each file before it is used.

        Raises:
            DataError: there is no finished index.
            UsageError: its model is not M2Fashion.
            CorruptStoreError: a file is damaged.
            ResourceError: faiss is missing, or installed twice.
        """
        if not os.path.isdir(folder):
            raise DataError(
                f"no index in {folder}: that is no folder; build one with: "
                "retrieve build-index --dataset ..."
            )
        load_faiss()
        choice = choose_device(device)
        store = open_store(Path(folder), verify)
        checkpoint = load_checkpoint(store.model_folder, choice.device)
        check_indexable(checkpoint.model)
        assert isinstance(checkpoint.model, M2Fashion), "nothing else can be indexed"
        index = open_search(store, choice.device)
        return cls(store, checkpoint.model, index, choice.device)

    @property
    def schema(self) -> Schema:
        """Attributes and values that can be named."""
        return self.store.schema

    def query(
        self,
        image: QueryImage,
        present: Sequence[str] = (),
        absent: Sequence[str] = (),
        like: Sequence[str] = (),
        where: Filters | None = None,
        top_k: int = 10,
        keep: float | None = None,
        offset: int = 0,
        min_score: float = 0.0,
        one_per_item: bool = False,
        include_query: bool = False,
        trust_labels: bool = False,
        exact: bool = False,
    ) -> QueryResult:
        """Find the gallery images that are like a picture and have the named values.

        Args:
            image: a file, an RGB picture, or what `encode` gave.
            present: and the rest but the last as in `Request`.
            exact: score every image, also where an approximate index would be searched.

        Returns:
            Hits, best first. Without any name: likeness as a whole.

        Raises:
            UsageError: an unknown, repeated or contradictory name, or a number out of its range.
            DataError: the image cannot be read.
        """
        request = Request(
            image, present, absent, like, where or {}, top_k, keep, offset, min_score,
            one_per_item, include_query, trust_labels,
        )  # fmt: skip
        return self.query_many([request], exact)[0]

    def query_many(self, requests: Sequence[Request], exact: bool = False) -> list[QueryResult]:
        """Answer many requests: pictures are encoded, and vectors searched for, in batches.

        Args:
            requests: what is asked; see `query` for the errors, of which those of names come
                before any work.
            exact: as for `query`.
        """
        resolved = [self._resolve(request) for request in requests]
        out = []
        for start in range(0, len(requests), _BATCH):
            some = requests[start : start + _BATCH]
            terms = resolved[start : start + _BATCH]
            pictures = self._pictures([request.image for request in some])
            asked = [self._asked(*each, exact) for each in zip(some, terms, pictures, strict=True)]
            out += [self._answer(*each) for each in zip(asked, self._fetch(asked), strict=True)]
        return out

    def encode(self, image: str | Path | Image.Image) -> Picture:
        """What the model sees in one picture, for `query` and `Request`; raises DataError."""
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
        bare = [image for image in images if not isinstance(image, Picture)]
        encoded = iter(self._encode(bare))
        return [image if isinstance(image, Picture) else next(encoded) for image in images]

    def _asked(self, request: Request, terms: Terms, picture: Picture, exact: bool) -> _Asked:
        formula = self._formula(terms, picture, request.keep)
        return _Asked(request, terms, picture, formula, self._allowed(terms), exact)

    def _formula(
        self,
        terms: Terms,
        picture: Picture,
        keep: float | None,
        known: Mapping[int, bool] | None = None,
    ) -> Formula:
        """All of a request; `known` as in `formula_of`."""
        return formula_of(
            self.store.layout,
            self.schema,
            picture.chances,
            picture.nuance,
            terms.wanted,
            terms.unwanted,
            terms.like,
            keep,
            known,
        )

    def _allowed(self, terms: Terms) -> Allowed:
        if not terms.where:
            return None
        mask = self._masks.get(terms.where)
        if mask is None:
            mask = allowed_rows(self.store, terms.where)
            self._masks.put(terms.where, mask)
        return mask

    def _fetch(self, asked: Sequence[_Asked]) -> list[tuple[Rows, Floats]]:
        """The best images of each, those of one filter found in one search."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, one in enumerate(asked):
            alone = number if one.by_labels else None
            fetch = first_fetch(one.request, len(self.store))
            key = one.terms.where, fetch, alone, one.formula.linear
            groups.setdefault(key, []).append(number)
        out: dict[int, tuple[Rows, Floats]] = {}
        for numbers in groups.values():
            first = asked[numbers[0]]
            fetch = first_fetch(first.request, len(self.store))
            if first.by_labels:
                out[numbers[0]] = self._by_labels(first, fetch)
                continue
            formulas = [asked[number].formula for number in numbers]
            found = self._search(formulas, fetch, first.allowed, first.exact)
            out |= zip(numbers, found, strict=True)
        return [out[number] for number in range(len(asked))]

    def _search(
        self, formulas: Sequence[Formula], k: int, allowed: Allowed, exact: bool
    ) -> list[tuple[Rows, Floats]]:
        """The best k images by each formula, fewer where there are no more.

        Either all formulas are linear or none is.
        """
        if not formulas[0].linear:
            if exact:
                return [self._best(formula, k, self._every(allowed)) for formula in formulas]
            # Where no image has all that is named, likeness alone decides.
            sought = [vector for one in formulas for vector in (one.vector, one.alike)]
            weights = np.stack([vector.weights for vector in sought])
            found, _ = self.index.search(weights, max(k, CANDIDATES), allowed)
            return [
                self._best(formula, k, np.unique(rows[rows >= 0]))
                for formula, rows in zip(formulas, np.split(found, len(formulas)), strict=True)
            ]
        vectors = [formula.vector for formula in formulas]
        weights = np.stack([vector.weights for vector in vectors])
        found, scores = self.index.search(weights, k, allowed, exact)
        return [
            (rows[rows >= 0], own[rows >= 0] + np.float32(vector.constant))
            for rows, own, vector in zip(found, scores, vectors, strict=True)
        ]

    def _best(self, formula: Formula, k: int, rows: Rows) -> tuple[Rows, Floats]:
        """The best k of some images, each scored by the formula; ties by row."""
        parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        scored = [formula.scores(self.store.descriptors_of(part)) for part in parts]
        scores = np.concatenate(scored or [np.zeros(0, np.float32)])
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]

    def _every(self, allowed: Allowed) -> Rows:
        if allowed is None:
            return np.arange(len(self.store), dtype=np.int64)
        return np.flatnonzero(allowed).astype(np.int64)

    def _by_labels(self, asked: _Asked, k: int) -> tuple[Rows, Floats]:
        """The best k images where known labels settle what is asked."""
        found = []
        states = self.store.states(asked.terms.named)
        for part in parts_by_labels(states, asked.terms.named, asked.allowed):
            formula = self._formula(asked.terms, asked.picture, asked.request.keep, part.known)
            found += self._search([formula], k, part.rows, asked.exact)
        rows = np.concatenate([rows for rows, _ in found] or [np.zeros(0, np.int64)])
        scores = np.concatenate([scores for _, scores in found] or [np.zeros(0, np.float32)])
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]

    def _answer(self, asked: _Asked, fetched: tuple[Rows, Floats]) -> QueryResult:
        found = self._choose(asked, fetched)
        requested = [(v, True) for v in asked.terms.wanted]
        requested += [(v, False) for v in asked.terms.unwanted]
        unknown = np.zeros(self.schema.size, dtype=np.int8)
        chances, image = asked.picture.chances, asked.request.image
        return QueryResult(
            image=str(image) if isinstance(image, str | Path) else "image",
            condition=self.schema.describe(asked.terms.condition),
            requested=judged(self.schema, requested, unknown, chances),
            predicted=likely_values(self.schema, chances),
            hits=describe_hits(
                self.store, found, asked.formula.alike, requested, asked.request.offset
            ),
            gallery=len(self.store),
            searched=len(self.store)
            if asked.allowed is None
            else int(np.count_nonzero(asked.allowed)),
            left_out=found.copies,
        )

    def _choose(self, asked: _Asked, fetched: tuple[Rows, Floats]) -> Found:
        request, own = asked.request, asked.picture.digest
        size, items = len(self.store), self.store.items()

        def search(k: int) -> tuple[Rows, Floats]:
            if asked.by_labels:
                return self._by_labels(asked, k)
            return self._search([asked.formula], k, asked.allowed, asked.exact)[0]

        def is_copy(rows: Rows) -> NDArray[np.bool_]:
            mine = np.frombuffer(own or b"", np.uint8)
            same: NDArray[np.bool_] = (self.store.digests_of(rows) == mine).all(axis=1)
            return same

        return choose_hits(
            request,
            fetched,
            first_fetch(request, size),
            size,
            search,
            None if own is None or request.include_query else is_copy,
            (lambda rows: items[rows]) if request.one_per_item and items is not None else None,
        )
