"""`query under an existing view`: a picture that is encoded, a condition that has a view."""

from __future__ import annotations

from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import raw_faiss
from benchmarks.speed.measured_calls import K, embed_picture, exact_view, search_existing
from benchmarks.speed.row import Row
from benchmarks.speed.timing import Paired, paired
from retrieval.engine import Engine
from retrieval.picture import Picture
from training.schema import Condition

VIEW = "query under an existing view"
APPROXIMATE = "query under an existing view, approximate"


def view_rows(bench: Bench) -> list[Row]:
    """A row a size: the exact search, against raw faiss on the same vectors."""
    return [_row(bench, size, exact=True) for size in bench.sizes]


def approximate_rows(bench: Bench) -> list[Row]:
    """A row a size: what the engine does unless it is told to be exact, and its recall."""
    return [_row(bench, size, exact=False) for size in bench.sizes]


def _row(bench: Bench, size: int, exact: bool) -> Row:
    engine = bench.engine(size)
    pictures = bench.pictures(engine)
    types = range(len(engine.schema.attributes))
    measured = [_view(engine, engine.schema.type_condition(n), pictures, exact) for n in types]
    against = measured[0][2]
    times = Paired(
        tuple(s for one, _, _ in measured for s in one.seconds),
        tuple(s for one, _, _ in measured for s in one.floors),
    )
    slowest = max(median(one.seconds) for one, _, _ in measured)
    return Row(
        what=VIEW if exact else APPROXIMATE,
        size=size,
        value=times.value * 1000,
        unit="ms",
        floor=times.floor * 1000,
        ratio=times.ratio,
        recall=float(np.mean([share for _, share, _ in measured])),
        against=against,
        repeats=len(times.seconds),
        bytes_read=size * engine.store.dim * 4 if exact else None,
        details={
            "views": len(measured),
            "slowest_view_ms": slowest * 1000,
            "slowest_ms": max(times.seconds) * 1000,
        },
    )


def _view(
    engine: Engine, condition: Condition, pictures: list[Picture], exact: bool
) -> tuple[Paired, float, str]:
    """Times of a view's searches, their recall, and the floor in words."""
    view = engine.pool.existing(condition)
    vectors = exact_view(engine, condition) if view is None else np.array(view.vectors)
    raw, words = raw_faiss(vectors, K, engine.device)
    queries = [embed_picture(engine, picture, condition) for picture in pictures]
    found: dict[int, NDArray[np.int64]] = {}

    def ask(number: int) -> None:
        found[number] = search_existing(engine, pictures[number], condition, exact)

    times = paired(ask, lambda number: raw(queries[number]), len(pictures), settled=True)
    hits = [found[number] for number in range(len(queries))]
    return times, recall(hits, queries, vectors), words


def recall(
    found: list[NDArray[np.int64]],
    queries: list[NDArray[np.float32]],
    vectors: NDArray[np.float32],
) -> float:
    """Share of the true ten nearest that were found, mean over queries.

    Args:
        found: rows of each query, best first, [10] or, in a smaller gallery, all.
        queries: unit vectors [d].
        vectors: unit vectors [N, d].

    Returns:
        0..1. An image that is as near as the tenth counts, whichever of them was named.
    """
    k = min(K, len(vectors))
    shares = []
    for rows, query in zip(found, queries, strict=True):
        scores = vectors @ query
        tenth = np.partition(scores, -k)[-k] - 1e-6
        shares.append(min(k, int((scores[rows[:k]] >= tenth).sum())) / k)
    return float(np.mean(shares))
