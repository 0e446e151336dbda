"""`cold combination, two stages`: values named together that no view exists for.

Ranked as `retrieve query --attrs` ranks; recall against the same score of every image under the
exact view. Galleries that the engine searches whole at once have no such row. A view that an answer
left behind is dropped before the next one, and how many answers came from the whole gallery after
all is told. (By the cosine under such a condition alone the engine searches exactly: NOTES.md.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import copies, maps_bytes, one_pass, tail_gemms
from benchmarks.speed.measured_calls import forget, search_values
from benchmarks.speed.row import Row
from benchmarks.speed.timing import seconds_of
from retrieval.engine import Engine
from retrieval.request import Request, resolve

COLD = "cold combination, two stages"
COLD_EXACT = "cold combination, exact"


def cold_rows(bench: Bench) -> list[Row]:
    """A row a size, against what an exact view costs at least; on a GPU the query is exact."""
    engines = ((size, bench.engine(size)) for size in bench.sizes)
    on_cpu = bench.device == "cpu"
    return [_row(bench, size, e) for size, e in engines if e.candidates_first or not on_cpu]


def _row(bench: Bench, size: int, engine: Engine) -> Row:
    details: dict[str, float | int | str] = {}
    if engine.candidates_first:
        details["calibration_seconds"] = seconds_of(engine.calibration)
        details["candidates"] = round(engine.calibration().score.second * size)
    pictures = bench.pictures(engine)
    names = engine.schema.value_names
    drawn = [[names[v] for v in values] for values in bench.drawn(engine)]
    seconds: list[float] = []
    ratios: list[float] = []
    floors: list[float] = []
    recalls: list[float] = []
    whole = 0
    floor, against = _floor(bench, size, engine)
    floor()
    for values in drawn:
        terms = resolve(engine.schema, Request("", present=values))
        found = []
        search_values(engine, pictures[0], terms)  # what a first call sets up is not timed
        forget(engine, terms.condition)
        own = []
        for picture in pictures:
            started = time.perf_counter()
            found.append(search_values(engine, picture, terms))
            own.append(time.perf_counter() - started)
            whole += forget(engine, terms.condition)
        floors.append(seconds_of(floor))
        ratios.append(median(own) / floors[-1])
        seconds += own
        for picture, rows in zip(pictures, found, strict=True):
            right = search_values(engine, picture, terms, exact=True)
            recalls.append(len(set(rows.tolist()) & set(right.tolist())) / len(right))
        forget(engine, terms.condition)
    return Row(
        what=COLD if engine.candidates_first else COLD_EXACT,
        size=size,
        value=median(seconds) * 1000,
        unit="ms",
        floor=median(floors) * 1000,
        ratio=median(ratios),
        recall=float(np.mean(recalls)),
        against=against,
        repeats=len(seconds),
        details={
            "combinations": len(drawn),
            "answered_from_the_whole_gallery": whole,
            "slowest_ms": max(seconds) * 1000,
            **details,
        },
    )


def _floor(bench: Bench, size: int, engine: Engine) -> tuple[Callable[[], object], str]:
    """What an exact view costs at least, to be called, and in words what that is."""
    if bench.device == "cpu":
        gemms = tail_gemms(engine.model, size)
        words = "one pass over the maps, then the tail's matrix products alone: an exact view"
        return lambda: (one_pass(engine.store), gemms()), words
    copied = copies(maps_bytes(engine.store), bench.device)
    return copied, "reading the maps once at the bandwidth of copying"
