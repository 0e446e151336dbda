"""Cold combinations in two stages: values named together that no view exists for.

Galleries that the engine searches whole at once have no such row. Each combination is asked with
every picture and stays cold: a view that an answer left behind is dropped before the next one, and
how many answers came from the whole gallery after all is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import raw_faiss
from benchmarks.speed.measured_calls import (
    K,
    embed_picture,
    exact_view,
    forget,
    search_cold,
    search_values,
)
from benchmarks.speed.row import Row
from benchmarks.speed.timing import Paired, paired, seconds_of
from benchmarks.speed.view_rows import recall
from retrieval.engine import Engine
from retrieval.picture import Picture
from retrieval.request import Request, resolve

COLD = "cold combination, two stages"
BY_VALUES = "cold query by named values, two stages"


def cold_rows(bench: Bench) -> list[Row]:
    """A row a size: the nearest under the combination, against the exact view and raw faiss."""
    return [_cold(bench, size, bench.engine(size)) for size in _sizes(bench)]


def value_rows(bench: Bench) -> list[Row]:
    """A row a size: the hits of `retrieve query` by its score, against those of all images."""
    return [_by_values(bench, size, bench.engine(size)) for size in _sizes(bench)]


def _sizes(bench: Bench) -> Iterator[int]:
    return (size for size in bench.sizes if size >= bench.engine(size).two_stage_from)


def _cold(bench: Bench, size: int, engine: Engine) -> Row:
    calibration = seconds_of(engine.calibration)
    pictures = bench.pictures(engine)
    measured = [_combination(engine, pictures, values) for values in bench.drawn(engine)]
    recalls = [one.recall for one in measured]
    times = Paired(
        tuple(s for one in measured for s in one.times.seconds),
        tuple(s for one in measured for s in one.times.floors),
    )
    return Row(
        what=COLD,
        size=size,
        value=times.value * 1000,
        unit="ms",
        floor=times.floor * 1000,
        ratio=times.ratio,
        recall=float(np.mean(recalls)),
        against="raw faiss, flat, on the exact view's vectors, were they there",
        repeats=len(times.seconds),
        details={
            "combinations": len(measured),
            "answered_from_the_whole_gallery": sum(one.whole for one in measured),
            "slowest_ms": max(times.seconds) * 1000,
            "worst_combination_recall": min(recalls),
            "exact_view_seconds": median(one.exact_seconds for one in measured),
            "calibration_seconds": calibration,
        },
    )


@dataclass(frozen=True)
class _Combination:
    times: Paired
    recall: float
    exact_seconds: float
    whole: int


def _combination(engine: Engine, pictures: list[Picture], values: list[int]) -> _Combination:
    condition = engine.schema.value_condition(values)
    started = time.perf_counter()
    vectors = exact_view(engine, condition)  # not through the engine, which would keep it
    exact_seconds = time.perf_counter() - started
    raw = raw_faiss(vectors, K)
    queries = [embed_picture(engine, picture, condition) for picture in pictures]
    found: dict[int, NDArray[np.int64]] = {}
    whole: dict[int, bool] = {}

    def ask(number: int) -> None:
        found[number] = search_cold(engine, pictures[number], condition)
        whole[number] = forget(engine, condition)

    times = paired(ask, lambda number: raw(queries[number]), len(pictures))
    rows = [found[number] for number in range(len(queries))]
    return _Combination(times, recall(rows, queries, vectors), exact_seconds, sum(whole.values()))


def _by_values(bench: Bench, size: int, engine: Engine) -> Row:
    engine.calibration()
    pictures = bench.pictures(engine)
    names = engine.schema.value_names
    drawn = [[names[v] for v in values] for values in bench.drawn(engine)]
    asked = [resolve(engine.schema, Request("", present=values)) for values in drawn]
    cases = [(terms, picture) for terms in asked for picture in pictures]
    seconds, found, whole = [], [], 0
    search_values(engine, pictures[0], asked[0])  # what a first call sets up is not timed
    for terms, picture in cases:
        whole += forget(engine, terms.condition)
        started = time.perf_counter()
        found.append(search_values(engine, picture, terms))
        seconds.append(time.perf_counter() - started)
    recalls = []
    for (terms, picture), rows in zip(cases, found, strict=True):
        right = search_values(engine, picture, terms, exact=True)
        recalls.append(len(set(rows.tolist()) & set(right.tolist())) / len(right))
    return Row(
        what=BY_VALUES,
        size=size,
        value=median(seconds) * 1000,
        unit="ms",
        recall=float(np.mean(recalls)),
        repeats=len(seconds),
        details={
            "combinations": len(asked),
            "answered_from_the_whole_gallery": whole,
            "slowest_ms": max(seconds) * 1000,
        },
    )
