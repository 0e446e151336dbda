"""What a query gives back, hits with what is known and predicted of them; which images they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from indexer.hold.held import Records
from retrieval.query_vector import Asked
from retrieval.request import Request
from training.descriptor import DescriptorLayout, Floats
from training.schema import NOT_APPLICABLE, Schema, normalise_name

Rows = NDArray[np.int64]

Search = Callable[[int], tuple[Rows, Floats]]
"""The best k images, fewer where there are no more: rows and scores, best first."""

Verdict = Literal["present", "absent", "predicted", "predicted-absent"]
"""`present` and `absent` are known labels, `predicted` and `predicted-absent` the model's guess
(probability at least one half, or less)."""

Predicted = dict[str, tuple[str, float]]
"""The most likely value of each attribute, with its probability in 0..1."""

_SPARE = 8  # images fetched besides: most pictures have fewer copies
_GROWTH = 4  # by which more are fetched, as often as needed

_folded = lru_cache(maxsize=4096)(normalise_name)  # for each hit anew it takes the longest


@dataclass(frozen=True)
class RequestedValue:
    """One requested value in one image: whether it was asked to be present (else: absent), what
    is known or predicted of it, and the model's probability, 0..1."""

    name: str
    wanted: bool
    verdict: Verdict
    probability: float

    @property
    def fits(self) -> bool:
        """Whether the image is as was asked, as far as is known or predicted."""
        return self.wanted == (self.verdict in ("present", "predicted"))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with stable keys."""
        told = vars(self) | {"probability": round(self.probability, 4)}
        return {"value": told.pop("name"), **told}


@dataclass(frozen=True)
class Hit:
    """One gallery image.

    Args:
        rank: 1 is the best.
        score: what hits are ranked by, 0..1; ties by `row`, that of the index.
        likeness: to the query in what is compared, 0..1.
        path: absolute; `listed`: as the dataset lists it, relative to the gallery's folder.
        known: known values by attribute (from the gallery's labels).
        item: number of the product, None if it is not known.
        payload: the columns of the catalogue that are no attributes, those that are not empty.
    """

    rank: int
    score: float
    likeness: float
    path: Path
    listed: str
    row: int
    known: dict[str, list[str]]
    predicted: Predicted
    requested: tuple[RequestedValue, ...]
    item: int | None = None
    payload: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with the fields' names as keys."""
        return vars(self) | {
            "score": round(self.score, 6),
            "likeness": round(self.likeness, 6),
            # Names that are not UTF-8 keep their bytes as surrogates, which JSON escapes.
            "path": str(self.path),
            "predicted": _guesses(self.predicted),
            "requested": [value.to_json() for value in self.requested],
        }


@dataclass(frozen=True)
class QueryResult(Sequence[Hit]):
    """The hits of a query, best first; a sequence of them.

    Args:
        image: name of the query image.
        condition: the condition in words.
        requested: the requested values in the query image, as the model sees them; so `predicted`.
        gallery, searched: images there, and those left by the filters.
        left_out: copies of the query image that would have been among these hits or before them.
    """

    image: str
    condition: str
    requested: tuple[RequestedValue, ...]
    predicted: Predicted
    hits: tuple[Hit, ...]
    gallery: int
    searched: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with stable keys."""
        names = ("image", "condition", "gallery", "searched", "left_out")
        return {name: getattr(self, name) for name in names} | {
            "query_requested": [value.to_json() for value in self.requested],
            "query_predicted": _guesses(self.predicted),
            "hits": [hit.to_json() for hit in self.hits],
        }


def describe(
    schema: Schema, layout: DescriptorLayout, records: Records, asked: Asked
) -> Iterator[tuple[dict[str, list[str]], Predicted, tuple[RequestedValue, ...]]]:
    """Known values, predicted ones and the requested ones of images of a gallery."""
    all_chances = layout.chances(records.descriptors)
    for labels, chances in zip(records.labels, all_chances, strict=True):
        known = known_values(schema, labels)
        yield known, likely_values(schema, chances), judged(schema, asked, labels, chances)


def known_values(schema: Schema, labels: NDArray[np.int8]) -> dict[str, list[str]]:
    """The values that an image is known to have, or that an attribute is known not to apply, by
    attribute, from its label states [K]."""
    known: dict[str, list[str]] = {}
    for value in np.flatnonzero(labels == 1).tolist():
        number = int(schema.attribute_of[value])
        own = schema.attributes[number]
        name = own.values[value - schema.offsets[number]]
        known.setdefault(_folded(own.name), []).append(name)
    for number in np.flatnonzero(schema.inapplicable(labels[None])[0]).tolist():
        known[_folded(schema.attributes[number].name)] = [NOT_APPLICABLE]
    return known


def likely_values(schema: Schema, chances: Floats) -> Predicted:
    """The most likely value of each attribute, or that it does not apply, from the probabilities of
    all values [K]."""
    out, lacking = {}, schema.left_over(chances[None])[0]
    for number, attribute in enumerate(schema.attributes):
        own = chances[schema.slice_of(number)]
        if len(own):
            top = int(own.argmax())
            has = own[top] >= lacking[number]
            out[_folded(attribute.name)] = (
                (attribute.values[top], float(own[top]))
                if has
                else (NOT_APPLICABLE, float(lacking[number]))
            )
    return out


def judged(
    schema: Schema, asked: Asked, labels: NDArray[np.int8], chances: Floats
) -> tuple[RequestedValue, ...]:
    """The requested values in one image, by its label states and probabilities, [K] each."""
    out = []
    for place, value in enumerate(asked.named):
        chance = float(chances[value])
        verdict: Verdict = "predicted" if chance >= 0.5 else "predicted-absent"
        if labels[value]:
            verdict = "present" if labels[value] > 0 else "absent"
        wanted = place < len(asked.wanted)
        out.append(RequestedValue(schema.value_names[value], wanted, verdict, chance))
    return tuple(out)


def _guesses(predicted: Predicted) -> dict[str, Any]:
    return {a: {"value": v, "probability": round(p, 4)} for a, (v, p) in predicted.items()}


@dataclass(frozen=True)
class Found:
    """Rows [n] and scores [n] that are shown, best first, and how many copies of the query
    picture were left out before the last of them."""

    rows: Rows
    scores: Floats
    copies: int


def first_fetch(request: Request, size: int) -> int:
    """Images of `size` that are fetched at first for a request."""
    return min(size, request.offset + request.top_k + _SPARE)


def choose_hits(
    request: Request,
    fetched: tuple[Rows, Floats],
    size: int,
    search: Search,
    is_copy: Callable[[Rows], NDArray[np.bool_]] | None,
    item_of: Callable[[Rows], NDArray[np.int64]] | None,
) -> Found:
    """Leave out what is not asked for, and fetch more until there are enough or no more.

    `fetched` are the best `first_fetch` images of the `size` of the index. `is_copy` tells copies
    of the query picture, which are left out (None: nothing is); `item_of` the item of each row, -1
    if unknown, of which one image is shown (None: all are).
    """
    fetch = first_fetch(request, size)
    last = request.offset + request.top_k
    while True:
        rows, scores = fetched
        copies = np.zeros(len(rows), dtype=bool) if is_copy is None else is_copy(rows)
        kept = ~copies
        if item_of is not None:
            kept[kept] = _first_of_item(item_of(rows[kept]))
        ended = len(rows) < fetch or fetch >= size
        if ended or kept.sum() >= last or float(scores[-1]) < request.min_score:
            break
        fetch = min(size, _GROWTH * fetch)
        fetched = search(fetch)
    places = np.flatnonzero(kept)[:last]
    before = int(places[-1]) if len(places) == last else len(rows)
    places = places[request.offset :]
    places = places[scores[places] >= request.min_score]
    return Found(rows[places], scores[places], int(copies[:before].sum()))


def _first_of_item(items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each is the first of its item; those of no known item are."""
    first = items < 0
    first[np.unique(items, return_index=True)[1]] = True
    return first
