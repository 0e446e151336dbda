"""What requests to one gallery cost: seconds, recall, bytes and memory, as rows of a table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import cores
from indexer.measure_recall import HITS, tenth_best
from indexer.search import SearchIndex
from indexer.store import Store
from retrieval.drawn_requests import draw_requests
from retrieval.engine import Engine
from retrieval.filters import allowed_rows, resolve_filters
from retrieval.picture import Picture
from retrieval.query_vector import CANDIDATES
from retrieval.request import Request
from training.descriptor import Floats
from training.errors import ResourceError

SHARES = (0.5, 0.1, 0.01, 0.001)
"""Of a gallery that filters leave."""

FILTERS = 5
"""Drawn of each share: twenty in all."""

_QUERIES = 64
_SEED = 1  # not that of the build, which chooses its probes by other requests
_FETCH = 18  # what the engine fetches for ten hits
_ROUNDING = 1e-5  # of a score
_SECONDS, _LEAST, _MOST = 2.0, 5, 50  # of a measurement, and repeats
_FILTER_SECONDS = 0.3  # of that of one filter of twenty

Allowed = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Args:
        what: in plain words.
        size: images of the gallery.
        value: the figure, a median where it was repeated.
        unit: of `value` and `floor`.
        floor: the least that it could be, measured right beside it; None if there is none.
        ratio: median of value / floor over the repeats.
        recall: recall@10, 0..1, of the worst filter where there are several; None: nothing is lost.
    """

    what: str
    size: int
    value: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Timed:
    """Medians of milliseconds, of the operation and of its floor, and of their ratio."""

    value: float
    floor: float
    ratio: float


class MemoryPass:
    """One reading of all descriptors' bytes by all cores: the floor of any exact search.

    Args:
        store: whose descriptors.
    """

    def __init__(self, store: Store) -> None:
        whole = [np.ascontiguousarray(block).reshape(-1) for block in store.blocks()]
        # Copied into a buffer that stays in the core's cache, at the pace of reading memory.
        self._size = 1 << 18
        pieces = [b[i : i + self._size] for b in whole for i in range(0, len(b), self._size)]
        count = cores()
        edges = np.linspace(0, len(pieces), count + 1).astype(int)
        self._parts = [pieces[a:b] for a, b in pairwise(edges)]
        self._pool = ThreadPoolExecutor(count, "floor")

    def __call__(self) -> None:
        """Read."""
        list(self._pool.map(self._read, self._parts))

    def _read(self, pieces: Sequence[NDArray[np.uint8]]) -> None:
        buffer = np.empty(self._size, np.uint8)
        for piece in pieces:
            np.copyto(buffer[: len(piece)], piece)


def in_turns(
    operation: Callable[[int], object], floor: Callable[[], object], seconds_long: float = _SECONDS
) -> Timed:
    """Time an operation, which is told the number of the repeat, and its floor, in turns."""
    operation(0)
    floor()
    seconds: list[float] = []
    floors: list[float] = []
    ended = time.perf_counter() + seconds_long
    while len(seconds) < _LEAST or (len(seconds) < _MOST and time.perf_counter() < ended):
        floor()
        operation(len(seconds))  # untimed, so that neither finds the other's bytes in the cache
        floors.append(_seconds(floor))
        operation(len(seconds) + 1)
        seconds.append(_seconds(partial(operation, len(seconds) + 2)))
    return Timed(
        1000 * statistics.median(seconds),
        1000 * statistics.median(floors),
        statistics.median(s / f for s, f in zip(seconds, floors, strict=True)),
    )


def measure_requests(engine: Engine, say: Callable[[str], None]) -> list[Row]:
    """Rows of an open index: any combination, approximate, with filters.

    Args:
        engine: the index.
        say: is told what is being measured.
    """
    store, index, size = engine.store, engine.index, len(engine.store)
    drawn = np.random.default_rng(_SEED).permutation(size)[:_QUERIES]
    descriptors = store.descriptors_of(drawn)
    weights = draw_requests(store.layout, store.schema, descriptors, _SEED)
    chances, nuance = store.layout.chances(descriptors), store.layout.nuance_of(descriptors)
    pictures = [Picture(*own, None) for own in zip(chances, nuance, strict=True)]
    names = combinations(engine, len(pictures))
    floor = MemoryPass(store)
    filters = {share: draw_filters(store, share) for share in SHARES}
    flat = store.lists is None
    everything = np.ones(size, dtype=bool)
    tenth = np.zeros((0, len(weights)), np.float32)
    if not flat:
        say("searching by hand, for recall")
        each = [everything, *(one for share in SHARES for one in filters[share])]
        tenth = tenth_best(store.blocks(), weights, each)
        tenth -= _ROUNDING * 255 * np.abs(weights).sum(1)
    rows = []

    def ask(number: int) -> object:
        place = number % len(pictures)
        return engine.query(Request(pictures[place], names[place]))

    def read_all(number: int) -> object:
        place = number % len(weights)
        return index.search(weights[place : place + 1], CANDIDATES, None, True)

    say("any combination")
    timed = in_turns(ask if flat else read_all, floor)
    rows.append(_row("any combination", size, timed))
    if not flat:
        timed = in_turns(ask, floor)
        recall = recall_of(index, weights, None, tenth[0])
        rows.append(_row("approximate", size, timed, recall))
    for exact in [True] if flat else [True, False]:
        worst = []
        for share in SHARES:
            say(f"with a filter of {share}, {'exact' if exact else 'approximate'}")
            slowest, recalls = None, []
            for number, allowed in enumerate(filters[share]):
                search = _filtered(index, weights, allowed, exact)
                timed = in_turns(search, floor, _FILTER_SECONDS)
                if slowest is None or timed.value > slowest.value:
                    slowest = timed
                if not exact:
                    place = 1 + FILTERS * SHARES.index(share) + number
                    recalls.append(recall_of(index, weights, allowed, tenth[place]))
            if slowest is None:
                continue
            what = f"with a filter that leaves {share:g}, {'exact' if exact else 'approximate'}"
            rows.append(_row(what, size, slowest, min(recalls, default=None)))
            worst.append(rows[-1])
        if worst:
            slow = max(worst, key=lambda row: row.value)
            recalls = [row.recall for row in worst if row.recall is not None]
            what = f"with a filter, {'exact' if exact else 'approximate'}, worst of them"
            rows.append(
                Row(
                    what, size, slow.value, "ms", slow.floor, slow.ratio, min(recalls, default=None)
                )
            )
    found = [_seconds(partial(_fresh_filter, engine, value)) for value in range(engine.schema.size)]
    rows.append(Row("what a new filter leaves", size, 1000 * statistics.median(found), "ms"))
    return rows


def combinations(engine: Engine, count: int) -> list[list[str]]:
    """Names of one to three values of different attributes, drawn, `count` times."""
    random, schema = np.random.default_rng(_SEED), engine.schema
    named = [number for number, own in enumerate(schema.attributes) if own.values]
    out = []
    for number in range(count):
        attributes = random.permutation(named)[: 1 + number % 3]
        places = [schema.slice_of(int(attribute)) for attribute in attributes]
        flat = [int(random.integers(place.start, place.stop)) for place in places]
        out.append([schema.value_names[value] for value in flat])
    return out


def draw_filters(store: Store, share: float) -> list[Allowed]:
    """Filters [M] bool: each leaves the share of images that most surely have a drawn value.

    None where that would be fewer than ten images.
    """
    random, size = np.random.default_rng(_SEED), len(store)
    count = int(share * size)
    if count < HITS:
        return []
    out = []
    for value in random.integers(store.layout.values, size=FILTERS).tolist():
        chances = np.concatenate([block[:, value] for block in store.blocks()])
        allowed = np.zeros(size, dtype=bool)
        allowed[np.argpartition(chances, size - count)[size - count :]] = True
        out.append(allowed)
    return out


def recall_of(index: SearchIndex, weights: Floats, allowed: Allowed | None, tenth: Floats) -> float:
    """Share of the best ten of each query [Q, width] that are as good as the true tenth [Q]."""
    _, scores = index.search(weights, HITS, allowed)
    return float((scores >= tenth[:, None]).mean())


def index_bytes(store: Store) -> float:
    """Bytes an image of the index, all but paths, payload and the model, which does not grow."""
    manifest = store.manifest
    files = [shard.file for shard in manifest.shards if shard.file]
    files += [manifest.gallery] if manifest.gallery else []
    total = manifest.search.file.size if manifest.search.file else 0
    for file in files:
        for place in file.arrays:
            if not place.name.startswith(("path", "payload")):
                total += int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize
    return total / len(store)


def memory_row(folder: Path, size: int, least: int) -> Row:
    """Most resident memory of a process that opens an index and queries it.

    Args:
        folder: of the index.
        size: images.
        least: bytes of all descriptors, the floor.

    Raises:
        ResourceError: the process failed.
    """
    words = [sys.executable, "-m", "benchmarks.speed.measure", str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ResourceError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    peak = json.loads(done.stdout) / 1e9
    return Row("memory", size, peak, "GB", least / 1e9, peak / (least / 1e9))


def _resident_after_queries(folder: Path) -> int:
    engine = Engine.open(folder, "cpu")
    store = engine.store
    some = store.descriptors_of(np.arange(min(8, len(store))))
    chances, nuance = store.layout.chances(some), store.layout.nuance_of(some)
    value = engine.schema.value_names[0]
    attribute = engine.schema.attributes[int(engine.schema.attribute_of[0])].name
    for place, own in enumerate(zip(chances, nuance, strict=True)):
        where = {attribute: "!=" + value} if place % 2 else {}
        for exact in (False, True):
            engine.query(Request(Picture(*own, None), [], where=where, exact=exact))
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak)


def _filtered(
    index: SearchIndex, weights: Floats, allowed: Allowed, exact: bool
) -> Callable[[int], object]:
    def search(number: int) -> object:
        place = number % len(weights)
        return index.search(weights[place : place + 1], _FETCH, allowed, exact)

    return search


def _fresh_filter(engine: Engine, value: int) -> None:
    schema = engine.schema
    attribute = schema.attributes[int(schema.attribute_of[value])].name
    name = schema.attributes[int(schema.attribute_of[value])].values[
        value - schema.slice_of(int(schema.attribute_of[value])).start
    ]
    filters = resolve_filters(schema, engine.store.payload, {attribute: name})
    allowed_rows(engine.store, filters)


def _row(what: str, size: int, timed: Timed, recall: float | None = None) -> Row:
    return Row(what, size, timed.value, "ms", timed.floor, timed.ratio, recall)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps(_resident_after_queries(Path(sys.argv[1]))))
