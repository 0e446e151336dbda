"""What a query gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

Verdict = Literal["present", "absent", "predicted", "predicted-absent"]
"""`present` and `absent` are known labels, `predicted` and `predicted-absent` the model's guess
(probability at least one half, or less)."""


@dataclass(frozen=True)
class RequestedValue:
    """What is known of one requested value in one image.

    Args:
        name: the value.
        wanted: whether it was asked to be present (else: absent).
        verdict: known or predicted.
        probability: the model's, in 0..1.
    """

    name: str
    wanted: bool
    verdict: Verdict
    probability: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with stable keys."""
        return {
            "value": self.name,
            "wanted": self.wanted,
            "verdict": self.verdict,
            "probability": round(self.probability, 4),
        }


@dataclass(frozen=True)
class Hit:
    """One gallery image.

    Args:
        rank: 1 is the best.
        score: what hits are ranked by, 0..1.
        likeness: to the query in what is compared, 0..1.
        path: the image file.
        row: its row in the index, 0-based; ties are broken by it.
        known: known values by attribute (from the gallery's labels).
        predicted: the model's most likely value of each attribute, with its probability.
        requested: the requested values, each with its probability.
        item: number of the product, None if it is not known.
        payload: the columns of the catalogue that are no attributes, those that are not empty.
    """

    rank: int
    score: float
    likeness: float
    path: Path
    row: int
    known: dict[str, list[str]]
    predicted: dict[str, tuple[str, float]]
    requested: tuple[RequestedValue, ...]
    item: int | None = None
    payload: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict with stable keys."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "likeness": round(self.likeness, 6),
            # Names that are not UTF-8 keep their bytes as surrogates, which JSON escapes.
            "path": str(self.path),
            "row": self.row,
            "known": self.known,
            "predicted": {
                a: {"value": v, "probability": round(p, 4)} for a, (v, p) in self.predicted.items()
            },
            "requested": [value.to_json() for value in self.requested],
            "item": self.item,
            "payload": self.payload,
        }


@dataclass(frozen=True)
class QueryResult(Sequence[Hit]):
    """The hits of a query, best first; a sequence of them.

    Args:
        image: name of the query image.
        condition: the condition in words.
        requested: the requested values in the query image, as the model sees them.
        predicted: the model's most likely value of each attribute of the query image.
        hits: best first.
        gallery: images in the gallery.
        searched: images left by the filters.
        left_out: copies of the query image that would have been among these hits or before them.
    """

    image: str
    condition: str
    requested: tuple[RequestedValue, ...]
    predicted: dict[str, tuple[str, float]]
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
        return {
            "image": self.image,
            "condition": self.condition,
            "gallery": self.gallery,
            "searched": self.searched,
            "left_out": self.left_out,
            "query_requested": [value.to_json() for value in self.requested],
            "query_predicted": {
                a: {"value": v, "probability": round(p, 4)} for a, (v, p) in self.predicted.items()
            },
            "hits": [hit.to_json() for hit in self.hits],
        }
