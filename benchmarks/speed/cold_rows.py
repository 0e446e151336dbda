"""`cold combination, two stages`: a picture that is encoded, a condition that has no view."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import one_pass, tail_gemms
from benchmarks.speed.measured_calls import K, embed_picture, exact_view, search
from benchmarks.speed.row import Row
from benchmarks.speed.timing import seconds_of
from benchmarks.speed.view_rows import recall
from retrieval.gallery_scores import GalleryScores
from retrieval.request import Terms
from training.schema import Condition

COLD = "cold combination, two stages"
NAMED = "cold combination, two stages, ranked by named values"

_AGAINST = "exact view: one pass over the maps, then the tail's matrix products alone"


def cold_rows(bench: Bench) -> list[Row]:
    """A row a size: the nearest under combinations of values, against their exact views."""
    return [_row(bench, size) for size in bench.sizes if bench.is_two_stage(size)]


def named_rows(bench: Bench) -> list[Row]:
    """A row a size: the same with the values named, as `retrieve query --attrs` ranks hits."""
    return [_named_row(bench, size) for size in bench.sizes if bench.is_two_stage(size)]


def _row(bench: Bench, size: int) -> Row:
    engine = bench.engine(size)
    engine.calibration()
    pictures, seconds, shares = bench.pictures(engine), [], []
    combinations = bench.drawn(engine)
    floor = one_pass_and_tail(bench, size)
    for number, values in enumerate(combinations):
        condition = engine.schema.value_condition(values)
        some = pictures[number :: len(combinations)]
        found = []
        search(engine, some[0], condition, exact=False)
        for picture in some:
            started = time.perf_counter()
            found.append(search(engine, picture, condition, exact=False))
            seconds.append(time.perf_counter() - started)
        queries = [embed_picture(engine, picture, condition) for picture in some]
        shares += [recall(found, queries, exact_view(engine, condition))] * len(some)
    return _of(bench, COLD, size, seconds, shares, floor, len(combinations))


def _named_row(bench: Bench, size: int) -> Row:
    engine = bench.engine(size)
    engine.calibration()
    pictures, seconds, shares = bench.pictures(engine), [], []
    combinations = bench.drawn(engine)
    floor = one_pass_and_tail(bench, size)
    for number, values in enumerate(combinations):
        terms = _terms(engine.schema.value_condition(values), values, engine.schema.attribute_of)
        vectors = exact_view(engine, terms.condition)
        for picture in pictures[number :: len(combinations)]:
            started = time.perf_counter()
            found = engine.ranked(picture, terms)[0]
            seconds.append(time.perf_counter() - started)
            scores = GalleryScores(engine.store, engine.pool, engine.model, picture, terms)
            exact = scores.with_vectors(vectors).total
            k = min(K, len(exact))
            tenth = np.partition(exact, -k)[-k] - 1e-6
            shares.append(float((exact[found[:k]] >= tenth).sum()) / k)
    return _of(bench, NAMED, size, seconds, shares, floor, len(combinations))


def one_pass_and_tail(bench: Bench, size: int) -> float:
    """Seconds of reading all maps once and of the tail's products for all, in ms."""
    engine = bench.engine(size)
    gemms = tail_gemms(engine.model, size, bench.device)
    one_pass(engine.store)
    return (seconds_of(lambda: one_pass(engine.store)) + seconds_of(gemms)) * 1000


def _terms(condition: Condition, values: list[int], owner: NDArray[np.int64]) -> Terms:
    spoken = sorted({int(owner[value]) for value in values})
    kept = tuple(n for n in range(int(owner.max()) + 1) if n not in spoken)
    return Terms(condition, tuple(values), (), tuple(spoken), kept, (), K, False)


def _of(
    bench: Bench,
    what: str,
    size: int,
    seconds: list[float],
    shares: list[float],
    floor: float,
    combinations: int,
) -> Row:
    engine = bench.engine(size)
    calibration = engine.calibration()
    used = calibration.likeness if what == COLD else calibration.score
    value = median(seconds) * 1000
    return Row(
        what=what,
        size=size,
        value=value,
        unit="ms",
        floor=floor,
        ratio=value / floor,
        recall=float(np.mean(shares)),
        against=_AGAINST,
        repeats=len(seconds),
        details={
            "slowest_ms": max(seconds) * 1000,
            "combinations": combinations,
            "recall_target": calibration.recall,
            "first_share": used.first,
            "second_share": used.second,
        },
    )
