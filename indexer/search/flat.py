"""Searching every descriptor: the products of all bytes, a batch of queries in one pass.

ONNX Runtime multiplies bytes by integers of 7 bits, for which processors have instructions, and
exactly. A query's weights are written as numbers of four such digits, so a pass is as good as one
in float32; it reads each descriptor once, whether one query asks or ten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.descriptor import Bytes, Floats
from training.device import open_session
from training.threads import threads

Allowed = NDArray[np.bool_]
Rows = NDArray[np.int64]

GRAPH = Path(__file__).with_name("products.onnx")
"""codes [n, width] uint8, digits [width, D] int8, places [Q, D] float32 -> scores [Q, n] float32,
which are places times (codes times digits) transposed; a test builds it anew and compares."""

_DIGITS = 4
_BASE = 128  # digits are -64..64: a sum of two of their products with bytes fits in 16 bits, which
# is where processors without instructions of VNNI's kind would saturate
_CHUNK = 32_768  # rows at a time
_LARGE = 8192  # rows, of a block that is worth a call
_SHARED_FROM = 20_000  # rows from which a second core is worth its start


@cache
def _products() -> Callable[[Bytes, NDArray[np.int8], Floats], Floats]:
    session: Any = open_session(GRAPH.read_bytes())

    def scores(codes: Bytes, digits: NDArray[np.int8], places: Floats) -> Floats:
        given = {"codes": codes, "digits": digits, "places": places}
        found: Floats = session.run(None, given)[0]
        return found

    return scores


def in_digits(weights: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Weights [Q, width] as digits [width, D] and what each counts for, [Q, D] with D = 4 Q.

    Their product differs from the weights by at most 2^-28 of a query's largest.
    """
    largest = np.abs(weights).max(1, initial=0).astype(np.float64)
    unit = np.where(largest > 0, largest, 1) / (_BASE**_DIGITS / 2 - 1)
    left = np.rint(weights / unit[:, None]).astype(np.int64)
    digits = np.empty((len(weights), _DIGITS, weights.shape[1]), np.int8)
    places = np.zeros((len(weights), len(weights), _DIGITS), np.float32)
    for place in range(_DIGITS):
        last = place == _DIGITS - 1
        own = left if last else (left + _BASE // 2) % _BASE - _BASE // 2
        digits[:, place], left = own, (left - own) // _BASE
        np.fill_diagonal(places[:, :, place], unit * _BASE**place)
    columns = len(weights) * _DIGITS
    return np.ascontiguousarray(digits.reshape(columns, -1).T), places.reshape(-1, columns)


_Piece = tuple[int, Bytes]
"""The first row of some, and their descriptors."""


def _best(
    pieces: Sequence[_Piece],
    digits: NDArray[np.int8],
    places: Floats,
    count: int,
    allowed: Allowed | None,
) -> tuple[Floats, Rows]:
    """The best rows of some pieces and their scores [Q, count], fewer where there are no more."""
    queries = len(places)
    best = [np.empty(0, np.float32)] * queries
    rows = [np.empty(0, np.int64)] * queries
    limits = [-np.inf] * queries
    for start, codes in pieces:
        scores = _products()(codes, digits, places)
        if allowed is not None:
            scores[:, ~allowed[start : start + len(codes)]] = -np.inf
        for query, own in enumerate(scores):
            near = np.flatnonzero(own > limits[query])
            best[query] = np.concatenate([best[query], own[near]])
            rows[query] = np.concatenate([rows[query], near + start])
            if len(best[query]) > count:
                order = np.argpartition(best[query], -count)[-count:]
                best[query], rows[query] = best[query][order], rows[query][order]
                limits[query] = best[query].min()
    most = max(map(len, rows), default=0)
    return (
        np.stack([np.pad(own, (0, most - len(own)), constant_values=-np.inf) for own in best]),
        np.stack([np.pad(own, (0, most - len(own)), constant_values=-1) for own in rows]),
    )


def _large(blocks: Iterable[Bytes]) -> Iterator[Bytes]:
    """Blocks of `_LARGE` rows and more as they are, smaller ones joined."""
    small: list[Bytes] = []
    for block in blocks:
        if len(block) >= _LARGE and not small:
            yield block
            continue
        small.append(block)
        if sum(map(len, small)) >= _CHUNK:
            yield np.concatenate(small)
            small = []
    if small:
        yield np.concatenate(small) if len(small) > 1 else small[0]


class FlatBytes:
    """All M descriptors, [n, width] uint8 of consecutive rows a block, which stay where they are if
    they are large; shared out to the cores, each searching its own."""

    def __init__(self, blocks: Iterable[Bytes]) -> None:
        blocks = list(_large(blocks))
        rows = sum(map(len, blocks))
        count = threads() if rows >= _SHARED_FROM else 1
        chunk = min(_CHUNK, -(-rows // count)) or 1
        pieces, first = [], 0
        for block in blocks:
            for start in range(0, len(block), chunk):
                pieces.append((first + start, block[start : start + chunk]))
            first += len(block)
        cuts = [len(pieces) * part // count for part in range(count + 1)]
        self._parts = [pieces[a:b] for a, b in pairwise(cuts)]
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def candidates(
        self, weights: Floats, count: int, allowed: Allowed | None
    ) -> tuple[Floats, Rows]:
        """Scores and rows [Q, any] of the best `count` of every part, in any order; -1: none."""
        digits, places = in_digits(weights)

        def search(part: Sequence[_Piece]) -> tuple[Floats, Rows]:
            return _best(part, digits, places, count, allowed)

        found = list(self._threads().map(search, self._parts))
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores, 1), np.concatenate(rows, 1)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            self._pool = os.getpid(), ThreadPoolExecutor(len(self._parts), "search")
        return self._pool[1]
