"""What requests to one gallery cost: seconds, recall, bytes and memory, as rows of a table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.search.choose import HITS, recall_of, tenth_best
from indexer.store.store import Store
from retrieval.engine import Engine
from retrieval.picture import stored_pictures
from retrieval.query_vector import CANDIDATES, draw_requests
from retrieval.request import Request
from training.errors import ResourceError
from training.threads import threads

SHARES = (0.5, 0.1, 0.01, 0.001)
"""Of a gallery that filters leave."""

FILTERS = 5
"""Drawn of each share: twenty in all."""

_QUERIES = 64
_SEED = 1  # not that of the build, which chooses its probes by other requests
_FETCH = 18  # what the engine fetches for ten hits
_SECONDS, _LEAST, _MOST = 2.0, 5, 50  # of a measurement, and repeats
_FILTER_SECONDS = 0.3  # of that of one filter of twenty


@dataclass(frozen=True)
class Row:
    """One measured figure of a gallery of `size` images, a median where it was repeated.

    `floor` is the least that it could be, measured right beside it, `ratio` the median of value /
    floor; `recall` recall@10 of the worst filter where there are several, None: nothing is lost.
    """

    what: str
    size: int
    value: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    recall: float | None = None


def memory_pass(store: Store) -> Callable[[], object]:
    """One reading of all descriptors' bytes by all threads: the floor of any exact search."""
    # Copied into a buffer that stays in the core's cache, at the pace of reading memory.
    size, count = 1 << 18, threads()
    whole = [np.ascontiguousarray(block).reshape(-1) for block in store.blocks()]
    pieces = [block[i : i + size] for block in whole for i in range(0, len(block), size)]
    cuts = [len(pieces) * n // count for n in range(count + 1)]
    parts = [pieces[a:b] for a, b in pairwise(cuts)]
    pool = ThreadPoolExecutor(count, "floor")

    def read(part: Sequence[NDArray[np.uint8]]) -> None:
        buffer = np.empty(size, np.uint8)
        for piece in part:
            np.copyto(buffer[: len(piece)], piece)

    return lambda: list(pool.map(read, parts))


def in_turns(
    what: str,
    size: int,
    operation: Callable[[int], object],
    floor: Callable[[], object],
    long: float,
) -> Row:
    """Time an operation, which is told the number of the repeat, and its floor, for `long` s."""
    operation(0)
    floor()
    spent: list[float] = []
    floors: list[float] = []
    ended = time.perf_counter() + long
    while len(spent) < _LEAST or (len(spent) < _MOST and time.perf_counter() < ended):
        floor()
        operation(len(spent))  # untimed, so that neither finds the other's bytes in the cache
        floors.append(_milliseconds(floor))
        operation(len(spent) + 1)
        spent.append(_milliseconds(partial(operation, len(spent) + 2)))
    ratio = statistics.median(s / f for s, f in zip(spent, floors, strict=True))
    return Row(what, size, statistics.median(spent), "ms", statistics.median(floors), ratio)


def measure_requests(engine: Engine, say: Callable[[str], None]) -> list[Row]:
    """Rows of an open index: any combination, approximate, with filters; `say` is told of each."""
    store, index, size = engine.store, engine.index, len(engine.store)
    drawn = np.random.default_rng(_SEED).permutation(size)[:_QUERIES]
    weights = draw_requests(store.layout, store.schema, store.descriptors_of(drawn), _SEED)
    pictures, names = stored_pictures(store, drawn), combinations(engine, len(drawn))
    floor, flat = memory_pass(store), store.lists is None
    filters = [(share, allowed) for share in SHARES for allowed in draw_filters(store, share)]
    if not flat:
        say("searching every descriptor, for recall")
        each = [None, *(allowed for _, allowed in filters)]
        tenth = [tenth_best(index, weights, allowed) for allowed in each]

    def ask(number: int) -> object:
        place = number % len(pictures)
        return engine.query(Request(pictures[place], names[place]))

    def search(allowed: NDArray[np.bool_] | None, exact: bool, count: int, number: int) -> object:
        place = number % len(weights)
        return index.search(weights[place : place + 1], count, allowed, exact)

    def recall(place: int) -> float:
        allowed = filters[place - 1][1] if place else None
        return recall_of(index, weights, allowed, tenth[place])

    say("any combination")
    everything = ask if flat else partial(search, None, True, CANDIDATES)
    rows = [in_turns("any combination", size, everything, floor, _SECONDS)]
    if not flat:
        asked = in_turns("approximate", size, ask, floor, _SECONDS)
        rows.append(replace(asked, recall=recall(0)))
    for exact in [True] if flat else [True, False]:
        for share in dict.fromkeys(share for share, _ in filters):
            what = f"with a filter that leaves {share:g}, {'exact' if exact else 'approximate'}"
            say(what)
            own = [n for n, (other, _) in enumerate(filters) if other == share]
            asks = [partial(search, filters[n][1], exact, _FETCH) for n in own]
            timed = [in_turns(what, size, one, floor, _FILTER_SECONDS) for one in asks]
            slowest = max(timed, key=lambda row: row.value)
            worst = None if exact else min(recall(1 + n) for n in own)
            rows.append(replace(slowest, recall=worst))
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


def draw_filters(store: Store, share: float) -> list[NDArray[np.bool_]]:
    """Filters [M] bool: each leaves the share of images that most surely have a drawn value; none
    where that would be fewer than ten images."""
    random, size = np.random.default_rng(_SEED), len(store)
    count = int(share * size)
    out = []
    for value in random.integers(store.layout.values, size=FILTERS if count >= HITS else 0):
        chances = np.concatenate([block[:, value] for block in store.blocks()])
        allowed = np.zeros(size, dtype=bool)
        allowed[np.argpartition(chances, size - count)[size - count :]] = True
        out.append(allowed)
    return out


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
    """Most resident memory of a process that opens an index and queries it, beside the bytes of all
    descriptors; raises ResourceError if the process fails."""
    words = [sys.executable, "-m", "benchmarks.speed.measure", str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ResourceError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    peak = json.loads(done.stdout)
    return Row("memory", size, peak / 1e9, "GB", least / 1e9, peak / least)


def _resident_after_queries(folder: Path) -> int:
    engine = Engine.open(folder, "cpu")
    attribute = engine.schema.attributes[int(engine.schema.attribute_of[0])].name
    where = {attribute: "!=" + engine.schema.value_names[0]}
    rows = np.arange(min(8, len(engine.store)))
    for place, picture in enumerate(stored_pictures(engine.store, rows)):
        for exact in (False, True):
            engine.query(Request(picture, where=where if place % 2 else {}, exact=exact))
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(peak)


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps(_resident_after_queries(Path(sys.argv[1]))))
