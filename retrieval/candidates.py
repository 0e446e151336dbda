"""From the best images to the hits that are shown: what is left out, and from which place on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.request import Request
from training.descriptor import Floats

_SPARE = 8  # images fetched besides: most pictures have fewer copies
_GROWTH = 4  # by which more are fetched, as often as needed

Rows = NDArray[np.int64]

Search = Callable[[int], tuple[Rows, Floats]]
"""The best k images, fewer where there are no more: rows and scores, best first."""


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

    Args:
        fetched: the best `first_fetch` images of the `size` of the index: rows and scores.
        is_copy: whether each row is a copy of the query picture, which is left out; None: none.
        item_of: item of each row, -1 if unknown, of which one image is shown; None: all are.
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
