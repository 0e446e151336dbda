"""The query layer: an open index and its model, kept warm, answering queries.

    query image --encode--> Picture --Z under the condition--> scores of the gallery --> hits

The gallery is embedded under the query's condition: by a view if there is one (view_pool.py), else
from the stored maps, all of them or only those of candidates (two_stage.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer.device import choose_device
from indexer.faiss_module import load_faiss
from indexer.head import stays_on_gpu
from indexer.indexable import check_indexable
from indexer.store import Store, open_store
from indexer.views import condition_key
from indexer.warm_views import WarmViews
from retrieval.calibration import (
    RECALL,
    Calibration,
    calibrate,
    load_calibration,
    save_calibration,
)
from retrieval.describe import describe_hit, judged, likely_values
from retrieval.gallery_scores import GalleryScores, Rows
from retrieval.hits import QueryResult
from retrieval.picture import Picture, encode_pictures
from retrieval.ranking import best
from retrieval.request import Filters, Request, Terms, resolve
from retrieval.two_stage import TwoStage
from retrieval.view_pool import ViewPool, default_memory
from training.checkpoint import load_checkpoint
from training.errors import DataError, UsageError
from training.images import open_rgb
from training.models.m2fashion import M2Fashion
from training.schema import Condition, Schema
from training.to_rgb import to_rgb

TWO_STAGE_FROM = 5_000
"""Images from which a query on a CPU looks for candidates first; fewer are all scored at once."""

Search = Literal["auto", "exact"]

Ranked = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""Rows, likeness and scores, best first."""

_BATCH = 32  # pictures encoded at a time


class Engine:
    """An index that is open for queries. Use `Engine.open`. Threads may share it.

    Args:
        store: the open index.
        model: its model, in inference mode, on `device`.
        device: where the head runs.
        memory: bytes of computed views that are kept in memory.
        recall: share of the true first ten hits that a query should find where it looks for
            candidates first, 0..1.
        two_stage_from: images from which it does.
    """

    def __init__(
        self,
        store: Store,
        model: M2Fashion,
        device: str,
        memory: int | None = None,
        recall: float = RECALL,
        two_stage_from: int = TWO_STAGE_FROM,
    ) -> None:
        self.store, self.model, self.device = store, model, device
        self.recall, self.two_stage_from = recall, two_stage_from
        warm = WarmViews(store.folder, store.manifest.content, verify=store.verify)
        memory = default_memory() if memory is None else memory
        self.pool = ViewPool(store, model, device, memory, warm)
        self.two_stage = TwoStage(store)
        self._calibration: Calibration | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        device: str = "auto",
        verify: bool = True,
        memory: int | None = None,
        recall: float = RECALL,
    ) -> Engine:
        """Open an index folder and the model inside it.

        Args:
            folder: what `retrieve build-index` wrote.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            verify: check each file's SHA-256 before it is parsed.
            memory: bytes of computed views that are kept; None: an eighth of the machine's.
            recall: share of the true first ten hits that is to be found in large galleries.

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
        return cls(store, checkpoint.model, choice.device, memory, recall)

    @property
    def schema(self) -> Schema:
        """Attributes and values that can be named."""
        return self.store.schema

    @cached_property
    def _exact_at_once(self) -> bool:
        """Whether a new condition's exact view costs so little that no candidates are looked for:
        on a GPU that holds the maps."""
        return stays_on_gpu(self.store, self.model, self.device)

    @property
    def candidates_first(self) -> bool:
        """Whether a query under a condition without a view looks for candidates first."""
        return len(self.store) >= self.two_stage_from and not self._exact_at_once

    def query(
        self,
        image: str | Path | Image.Image,
        present: Sequence[str] = (),
        absent: Sequence[str] = (),
        like: Sequence[str] = (),
        where: Filters | None = None,
        top_k: int = 10,
        trust_labels: bool = False,
        search: Search = "auto",
    ) -> QueryResult:
        """Find the gallery images that are like a picture and have the named values.

        Args:
            image: a file or an RGB picture.
            present: values that hits should have: `["v-neckline", "floral"]`.
            absent: values that they should not have.
            like: attributes to compare by (type conditions).
            where: attribute -> value, or values of one that an image can have several of; only
                images whose *known* labels are these are searched.
            top_k: how many hits at most, at least 1.
            trust_labels: let known gallery labels settle whether a value is present.
            search: `exact` scores every image also in a large gallery.

        Returns:
            Hits, best first. Without any name: likeness under the all-unknown condition.

        Raises:
            UsageError: an unknown, repeated or contradictory name, or `top_k` < 1.
            DataError: the image cannot be read.
        """
        request = Request(image, present, absent, like, where or {}, top_k, trust_labels)
        return self.query_many([request], search)[0]

    def query_many(self, requests: Sequence[Request], search: Search = "auto") -> list[QueryResult]:
        """Answer many requests, under one condition or under many.

        Pictures are encoded in batches, and conditions that are worth a view get theirs in one
        pass over the stored maps.

        Args:
            requests: what is asked; see `query` for the errors, which come before any work.
            search: as for `query`.
        """
        if search not in get_args(Search):
            raise UsageError(f"unknown search {search!r}; choose auto or exact")
        asked = [resolve(self.schema, request) for request in requests]
        out: dict[int, QueryResult] = {}
        for numbers in self._by_portions(asked, search):
            for start in range(0, len(numbers), _BATCH):
                some = numbers[start : start + _BATCH]
                terms = [asked[number] for number in some]
                pictures = self._pictures([requests[number].image for number in some])
                ready = self._together(terms, pictures, search)
                for place, number in enumerate(some):
                    own = terms[place], pictures[place], search, ready.get(place)
                    out[number] = self._answer(requests[number], *own)
        return [out[number] for number in range(len(requests))]

    def encode(self, image: str | Path | Image.Image) -> Picture:
        """The condition-free half of one picture; raises DataError."""
        return self._pictures([image])[0]

    def nearest(
        self, picture: Picture, condition: Condition, k: int, search: Search = "auto"
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The gallery's view under a condition, searched with a picture.

        Args:
            picture: from `encode`.
            condition: label states [K].
            k: at least 1.
            search: as for `query`.

        Returns:
            Rows and cosines of the nearest, best first, ties by row.
        """
        ready = self._by_view([picture], condition, k, search)
        if ready is not None:
            return ready[0][0], ready[1][0]
        spoken = np.unique(self.schema.attribute_of[np.flatnonzero(condition)]).tolist()
        terms = Terms(condition, (), (), tuple(spoken), (), (), k, False)
        found, alike, _ = self.ranked(picture, terms, None, search)
        return found, alike

    def prepare(
        self, present: Sequence[str] = (), absent: Sequence[str] = (), like: Sequence[str] = ()
    ) -> None:
        """Build the view of a condition now, in memory and beside the index.

        Raises:
            UsageError: an unknown, repeated or contradictory name.
        """
        condition = self.schema.condition(present, absent, like)
        self.pool.get_all([condition], keep_on_disk=True)

    def calibration(self) -> Calibration:
        """How many candidates a query needs; measured once an index, then read from it."""
        content = self.store.manifest.content
        if self._calibration is None:
            self._calibration = load_calibration(self.store.folder, content, self.recall)
        if self._calibration is None:
            self._calibration = calibrate(self.two_stage, self.pool, self.recall)
            save_calibration(self.store.folder, self._calibration)
        return self._calibration

    def _pictures(self, images: Sequence[str | Path | Image.Image]) -> list[Picture]:
        preprocessing = self.store.preprocessing
        pixels = [
            preprocessing.fit(
                to_rgb(image)
                if isinstance(image, Image.Image)
                else open_rgb(Path(image), draft=preprocessing.size)
            )
            for image in images
        ]
        batch = torch.from_numpy(np.stack(pixels)).to(self.device)
        return encode_pictures(self.model, preprocessing.normalise(batch))

    def _by_portions(self, asked: Sequence[Terms], search: Search) -> Iterator[list[int]]:
        """Numbers of the requests, those first whose conditions have a view or are not to get one.

        Then those of conditions that are asked for often enough, a portion at a time, once their
        views are built in one pass: before the next ones may need the memory.
        """
        groups: dict[str, list[int]] = {}
        for number, terms in enumerate(asked):
            groups.setdefault(condition_key(terms.condition), []).append(number)
        conditions = {key: asked[numbers[0]].condition for key, numbers in groups.items()}
        cold = [key for key in groups if self.pool.existing(conditions[key]) is None]
        wanted = [
            conditions[key]
            for key in cold
            if self.pool.asked(conditions[key], len(groups[key]))
            or search == "exact"
            or not self.candidates_first
        ]
        later = {condition_key(condition) for condition in wanted}
        yield sorted(n for key, numbers in groups.items() if key not in later for n in numbers)
        for portion in self.pool.portions(wanted):
            self.pool.get_all(portion, keep_on_disk=self.candidates_first)
            yield sorted(n for condition in portion for n in groups[condition_key(condition)])

    def _together(
        self, asked: Sequence[Terms], pictures: Sequence[Picture], search: Search
    ) -> dict[int, Ranked]:
        """Answers, by number, of requests that one view answers by likeness alone: all at once."""
        groups: dict[str, list[int]] = {}
        for number, terms in enumerate(asked):
            if not terms.named and not terms.where:
                groups.setdefault(condition_key(terms.condition), []).append(number)
        out: dict[int, Ranked] = {}
        for numbers in groups.values():
            if len(numbers) < 2:
                continue
            most = max(asked[n].top_k for n in numbers)
            condition = asked[numbers[0]].condition
            ready = self._by_view([pictures[n] for n in numbers], condition, most, search)
            if ready is None:
                continue
            found, alike = ready
            for own, rows, number in zip(alike, found, numbers, strict=True):
                k = asked[number].top_k
                out[number] = rows[:k], own[:k], own[:k]
        return out

    def _answer(
        self,
        request: Request,
        terms: Terms,
        picture: Picture,
        search: Search,
        ranked: Ranked | None,
    ) -> QueryResult:
        rows = self._where(terms)
        found, alike, scores = ranked or self.ranked(picture, terms, rows, search)
        requested = [(v, True) for v in terms.wanted] + [(v, False) for v in terms.unwanted]
        unknown = np.zeros(self.schema.size, dtype=np.int8)
        image = request.image
        return QueryResult(
            image=str(image) if isinstance(image, str | Path) else "image",
            condition=self.schema.describe(terms.condition),
            requested=judged(self.schema, requested, unknown, picture.chances),
            predicted=likely_values(self.schema, picture.chances),
            hits=tuple(
                describe_hit(self.store, rank, int(row), float(like_), float(score), requested)
                for rank, (row, like_, score) in enumerate(
                    zip(found, alike, scores, strict=True), start=1
                )
            ),
            gallery=len(self.store),
            searched=len(self.store) if rows is None else len(rows),
        )

    def ranked(
        self, picture: Picture, terms: Terms, rows: Rows = None, search: Search = "auto"
    ) -> Ranked:
        """Rows, likeness and scores of the best for an encoded picture, best first.

        Args:
            picture: from `encode`.
            terms: what is asked, from `request.resolve`; its filter is not applied.
            rows: rows to search, ascending; None: all.
            search: as for `query`.
        """
        if not terms.named and rows is None:
            ready = self._by_view([picture], terms.condition, terms.top_k, search)
            if ready is not None:
                (found,), (alike,) = ready
                return found, alike, alike
        scores = GalleryScores(self.store, self.pool, picture, terms)
        if search == "auto" and self.candidates_first:
            shares = self.calibration().shares(terms, self.schema)
            candidates = self.two_stage.candidates(scores, rows, shares)
            if candidates is not None:
                rows = candidates
        exact = scores.exact(rows)
        places = best(exact.total, terms.top_k)
        return places if rows is None else rows[places], exact.alike[places], exact.total[places]

    def _by_view(
        self, pictures: Sequence[Picture], condition: Condition, k: int, search: Search
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Rows and likeness [Q, k] of the best under a condition that has a view, else None."""
        view = self.pool.existing(condition)
        if view is None:
            return None
        head = self.pool.head(condition)
        queries = np.stack([head(picture) for picture in pictures])
        alike, found = view.search(queries, k, exact=search == "exact")
        return found, alike

    def _where(self, terms: Terms) -> Rows:
        if not terms.where:
            return None
        known = self.store.labels()[:, list(terms.where)] == 1
        return np.flatnonzero(known.all(axis=1)).astype(np.int64)
