"""The query layer: an open index and its model, kept warm, answering queries.

    query image --features--> I --attend(A)--> Z --FAISS, or the stored maps--> hits

The gallery is embedded under the query's condition: from a view if the index has one, else from
the stored maps.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from indexer import views
from indexer.device import choose_device
from indexer.faiss_module import load_faiss
from indexer.indexable import check_indexable
from indexer.store import Store, open_store
from retrieval.hits import Hit, QueryResult, RequestedValue, Verdict
from retrieval.ranking import (
    PRESENCE_WEIGHT,
    SETTLED_WEIGHT,
    best,
    combine,
    kept_attributes,
    likeness,
    presence,
    presence_weight,
)
from training.checkpoint import load_checkpoint
from training.errors import DataError, UsageError
from training.images import open_rgb
from training.models.conditioned import ConditionedEmbedder
from training.schema import Condition, Schema, normalise_name

VIEWS_KEPT = 2
"""Views computed for conditions without one that are kept for the next query, [N, d] float32."""

ROUNDING = 1e-5
"""More than two ways of adding up a cosine in float32 differ by."""

BEYOND = 64
"""Rows that FAISS is asked for beyond the cut, to see whether it falls between equal cosines."""


class Engine:
    """An index that is open for queries. Use `Engine.open`.

    Args:
        store: the open index.
        model: its model, in inference mode, on `device`.
        device: where the head runs.
    """

    def __init__(self, store: Store, model: ConditionedEmbedder, device: str) -> None:
        self.store = store
        self.model = model
        self.device = device
        self._computed: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._loaded: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: str | Path, device: str = "auto", verify: bool = True) -> Engine:
        """Open an index folder and the model inside it.

        Args:
            folder: what `retrieve build-index` wrote.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            verify: check each file's SHA-256 before it is parsed.

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
        return cls(store, checkpoint.model, choice.device)

    @property
    def schema(self) -> Schema:
        """Attributes and values that can be named."""
        return self.store.schema

    def query(
        self,
        image: str | Path | Image.Image,
        present: Sequence[str] = (),
        absent: Sequence[str] = (),
        like: Sequence[str] = (),
        where: Mapping[str, str] | None = None,
        top_k: int = 10,
        trust_labels: bool = False,
    ) -> QueryResult:
        """Find the gallery images that are like a picture and have the named values.

        Args:
            image: a file or an RGB picture.
            present: values that hits should have: `["v-neckline", "floral"]`.
            absent: values that they should not have.
            like: attributes to compare by (type conditions).
            where: attribute -> value; only images whose *known* label is that value are searched.
            top_k: how many hits at most, at least 1.
            trust_labels: let known gallery labels settle whether a value is present.

        Returns:
            Hits, best first. Without any name: likeness under the all-unknown condition.

        Raises:
            UsageError: an unknown, repeated or contradictory name, or `top_k` < 1.
            DataError: the image cannot be read.
        """
        if top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}")
        wanted = _distinct(present, self.schema.value)
        unwanted = _distinct(absent, self.schema.value)
        compared = _distinct(like, self.schema.attribute)
        condition = self.schema.condition(present, absent, like)
        rows = self._where(where or {})
        maps = self.encode(image)
        with torch.inference_mode():
            keys = self.model.keys(maps)
            own = self.model.predict(maps, keys)[0].cpu().numpy()
        z = self._embed_query(maps, keys, condition)
        named = [*wanted, *unwanted]
        if not named and rows is None:
            found, alike = self._search(condition, z, top_k)
            scores = alike
        else:
            alike = self.vectors(condition) @ z
            sure, has = None, 0.0
            if named:
                labels = self.store.labels() if trust_labels else None
                sure = presence(self.store.predicted(), wanted, unwanted, labels)
                kept = self._kept(maps, keys, kept_attributes(self.schema, named, compared))
                has = float(presence(own[None], wanted, unwanted)[0])
                alike = likeness(alike, kept, has)
            weight = presence_weight(has, SETTLED_WEIGHT if trust_labels else PRESENCE_WEIGHT)
            found, alike, scores = _ranked(alike, sure, weight, rows, top_k)
        requested = [(v, True) for v in wanted] + [(v, False) for v in unwanted]
        unknown = np.zeros(self.schema.size, dtype=np.int8)
        return QueryResult(
            image=str(image) if isinstance(image, str | Path) else "image",
            condition=self.schema.describe(condition),
            requested=self._requested(requested, unknown, own),
            predicted=self._predicted(own),
            hits=tuple(
                self._hit(rank, int(row), float(like_), float(score), requested)
                for rank, (row, like_, score) in enumerate(
                    zip(found, alike, scores, strict=True), start=1
                )
            ),
            gallery=len(self.store),
            searched=len(self.store) if rows is None else len(rows),
        )

    def encode(self, image: str | Path | Image.Image) -> Tensor:
        """I of one picture, [1, d, H, W] on the engine's device; raises DataError."""
        preprocessing = self.store.preprocessing
        if isinstance(image, Image.Image):
            picture = image.convert("RGB")
        else:
            picture = open_rgb(Path(image), draft=preprocessing.size)
        pixels = torch.from_numpy(preprocessing.fit(picture)).unsqueeze(0).to(self.device)
        with torch.inference_mode():
            return self.model.features(preprocessing.normalise(pixels))

    def vectors(self, condition: Condition) -> NDArray[np.float32]:
        """The gallery's embeddings under a condition, [N, d] float32, row order.

        From the index's view if it has one (mapped, not copied), else from the stored maps; the
        last few computed ones are kept.
        """
        key = views.condition_key(condition)
        index = self._view(condition, key)
        if index is not None:
            return _flat_vectors(index)
        if key in self._computed:
            self._computed.move_to_end(key)
        else:
            while len(self._computed) >= VIEWS_KEPT:
                self._computed.popitem(last=False)
            self._computed[key] = views.embed(self.store, self.model, condition, device=self.device)
        return self._computed[key]

    def _view(self, condition: Condition, key: str) -> Any | None:
        if key not in self._loaded:
            self._loaded[key] = views.load(self.store, condition)
        return self._loaded[key]

    def _embed_query(self, maps: Tensor, keys: Tensor, condition: Condition) -> NDArray[np.float32]:
        """Z [d] of the query from its I and P."""
        states = torch.from_numpy(condition).float().unsqueeze(0).to(self.device)
        with torch.inference_mode():
            z: NDArray[np.float32] = self.model.attend(maps, states, keys)[0].cpu().numpy()
        return z

    def _search(
        self, condition: Condition, z: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and cosines of the `k` nearest, best first, ties by row."""
        k = min(k, len(self.store))
        rows = np.sort(self._near(condition, z, k))
        # Row by row: the last bits of a product of matrices depend on what else is in it.
        scores = (self.vectors(condition)[rows] * z).sum(1)
        places = best(scores, k)
        return rows[places], scores[places]

    def _near(self, condition: Condition, z: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The `k` nearest rows and all that rounding might put among them, in any order; through
        FAISS where there is a view."""
        index = self._view(condition, views.condition_key(condition))
        if index is not None and k < len(self.store):
            likeness, found = index.search(z[None, :], min(k + BEYOND, len(self.store)))
            near = likeness[0] >= likeness[0, k - 1] - ROUNDING
            if found.shape[1] == len(self.store) or not near[-1]:
                return np.asarray(found[0][near], dtype=np.int64)
        scores = self.vectors(condition) @ z
        return np.flatnonzero(scores >= np.partition(scores, -k)[-k] - ROUNDING)

    def _kept(
        self, maps: Tensor, keys: Tensor, attributes: Sequence[int]
    ) -> NDArray[np.float32] | None:
        """Mean cosine [N] of the gallery and a picture under the attributes' type conditions."""
        total: NDArray[np.float32] | None = None
        for number in attributes:
            condition = self.schema.type_condition(number)
            z = self._embed_query(maps, keys, condition)
            alike = self.vectors(condition) @ z / np.float32(len(attributes))
            total = alike if total is None else total + alike
        return total

    def _where(self, where: Mapping[str, str]) -> NDArray[np.int64] | None:
        if not where:
            return None
        kept = np.ones(len(self.store), dtype=bool)
        for attribute, value in where.items():
            kept &= self.store.labels()[:, self.schema.value(f"{attribute}:{value}")] == 1
        return np.flatnonzero(kept).astype(np.int64)

    def _hit(
        self, rank: int, row: int, likeness: float, score: float, requested: list[tuple[int, bool]]
    ) -> Hit:
        labels = np.asarray(self.store.labels()[row])
        probabilities = np.asarray(self.store.predicted()[row], dtype=np.float32)
        known: dict[str, list[str]] = {}
        for number, attribute in enumerate(self.schema.attributes):
            own = labels[self.schema.slice_of(number)]
            if (own == 1).any():
                names = [attribute.values[i] for i in np.flatnonzero(own == 1)]
                known[normalise_name(attribute.name)] = names
        return Hit(
            rank=rank,
            score=score,
            likeness=likeness,
            path=self.store.root / self.store.paths[row],
            row=row,
            known=known,
            predicted=self._predicted(probabilities),
            requested=self._requested(requested, labels, probabilities),
        )

    def _predicted(self, probabilities: NDArray[np.float32]) -> dict[str, tuple[str, float]]:
        out = {}
        for number, attribute in enumerate(self.schema.attributes):
            own = probabilities[self.schema.slice_of(number)]
            if len(own):
                top = int(own.argmax())
                out[normalise_name(attribute.name)] = (attribute.values[top], float(own[top]))
        return out

    def _requested(
        self,
        requested: Sequence[tuple[int, bool]],
        labels: NDArray[np.int8],
        probabilities: NDArray[np.float32],
    ) -> tuple[RequestedValue, ...]:
        out = []
        for value, wanted in requested:
            chance = float(probabilities[value])
            verdict: Verdict
            if labels[value]:
                verdict = "present" if labels[value] > 0 else "absent"
            else:
                verdict = "predicted" if chance >= 0.5 else "predicted-absent"
            out.append(RequestedValue(self.schema.value_names[value], wanted, verdict, chance))
        return tuple(out)


def _ranked(
    alike: NDArray[np.float32],
    sure: NDArray[np.float32] | None,
    weight: float,
    rows: NDArray[np.int64] | None,
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """The `k` best of the gallery, or of its `rows`: rows, likeness and scores."""
    if rows is not None:
        alike = alike[rows]
        sure = None if sure is None else sure[rows]
    scores = combine(alike, sure, weight)
    places = best(scores, k)
    return places if rows is None else rows[places], alike[places], scores[places]


def _flat_vectors(index: Any) -> NDArray[np.float32]:
    """The vectors of a flat FAISS index, [N, d] float32, where they lie."""
    faiss = load_faiss()
    flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    vectors: NDArray[np.float32] = flat.reshape(index.ntotal, index.d)
    return vectors


def _distinct(names: Sequence[str], resolve: Callable[[str], int]) -> list[int]:
    """Numbers of names, in their order; `floral` and `pattern:floral` are one name twice."""
    found: dict[int, str] = {}
    for name in names:
        if not normalise_name(name):
            raise UsageError(f"the name {name!r} is empty; separate names by single commas")
        number = resolve(name)
        if number in found:
            other = "" if found[number] == name else f" (also as {found[number]!r})"
            raise UsageError(f"{name!r} is named twice{other}; once is enough")
        found[number] = name
    return list(found)
