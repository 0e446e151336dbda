"""Making the search of an index: nothing where it is flat, else its file of inverted lists."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from indexer.progress import Progress
from indexer.search.flat import Allowed, FlatBytes, Rows
from indexer.search.index import GATHER, SearchIndex, in_words
from indexer.search.lists import (
    InvertedLists,
    commit_lists,
    fill_lists,
    nearest_centre,
    open_lists,
    train_cells,
)
from indexer.store.files import open_file
from indexer.store.manifest import SearchEntry
from indexer.store.store import Store
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.errors import UsageError
from training.schema import Schema

WORST_RECALL = 0.95
"""The same for the worst of the filters that it is measured under."""

LISTS_FROM = 1_000_000
"""Images from which there are inverted lists: below, two cores read every descriptor in less time
than the eye notices (of 256 bytes, 253,983 in 12 ms and 1,000,000 in 31 ms)."""

MOST_LISTS = 4096
"""Inverted lists, at most: the time to assign rows to more of them is felt in a build."""


def choose_factory(rows: int, recall: float, asked: str | None = None) -> str:
    """`flat`, or `IVFn` for n inverted lists, as the user asked, or by the number of rows.

    `recall`, the recall@10 that is wanted, is above 0 and at most 1, which reads every descriptor.
    Raises UsageError: a recall out of range, another word, or more lists than rows.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be above 0 and at most 1, not {recall}")
    if asked is None:
        power = 1 << round(math.log2(4 * math.sqrt(rows)))
        return "flat" if rows < LISTS_FROM or recall == 1 else f"IVF{min(power, MOST_LISTS)}"
    found = re.fullmatch(r"(flat)|IVF([1-9][0-9]{0,6})", asked, re.IGNORECASE)
    if found is None:
        raise UsageError(
            f"unknown index factory {asked!r}; give flat, or IVF and the number of inverted lists, "
            "such as IVF1024"
        )
    if found[1]:
        return "flat"
    if int(found[2]) > rows:
        raise UsageError(
            f"index factory {asked!r} has more lists than the {rows:,} images; give at most "
            f"IVF{rows}, or flat"
        )
    return f"IVF{found[2]}"


def lists_of(factory: str) -> int:
    """Inverted lists of a factory string that `choose_factory` gave; 0 for `flat`."""
    return 0 if factory == "flat" else int(factory.removeprefix("IVF"))


Requests = Callable[[DescriptorLayout, Schema, Bytes, int], Floats]
"""Makes query vectors like those to come: of layout, schema, descriptors [Q, width] of pictures and
a seed, the weights [Q, width]."""

HITS = 10
"""The k of the recall@k that is measured."""

QUERIES = 64
"""That recall is measured with."""

_REQUESTS = 4096  # by which cells are made
_FILTERS = 20
_SHARES = (0.001, 0.5)  # of the gallery that a filter leaves


def likeness_requests(
    layout: DescriptorLayout, schema: Schema, descriptors: Bytes, seed: int
) -> Floats:
    """Queries that look for the pictures' own bytes, about their mean; see `Requests`."""
    own = descriptors.astype(np.float32)
    weights: Floats = own - own.mean(0)
    return weights


def draw_filters(store: Store) -> list[Allowed]:
    """Twenty filters [M] bool like those of users, from half of the images to a thousandth: each
    leaves the images that have a drawn value most surely. None leaves so few that each is read."""
    rows, values = len(store), store.schema.size
    least, most = max(_SHARES[0] * rows, GATHER + 1), _SHARES[1] * rows
    if least > most or not values:
        return []
    filters, random = [], np.random.default_rng(0)
    for count in np.geomspace(least, most, _FILTERS).astype(int).tolist():
        value = int(random.integers(values))
        chances = np.concatenate([block[:, value] for block in store.blocks()])
        allowed = np.zeros(rows, dtype=bool)
        allowed[np.argpartition(chances, rows - count)[rows - count :]] = True
        filters.append(allowed)
    return filters


def tenth_best(index: SearchIndex, weights: Floats, allowed: Allowed | None) -> Floats:
    """Score [Q] of each query's tenth best row by the search of every descriptor."""
    return index.search(weights, HITS, allowed, exact=True)[1][:, -1]


def recall_of(index: SearchIndex, weights: Floats, allowed: Allowed | None, tenth: Floats) -> float:
    """Share of the ten that each query finds that are as good as the `tenth_best`."""
    return float((index.search(weights, HITS, allowed)[1] >= tenth[:, None]).mean())


def measure_probes(
    lists: InvertedLists, store: Store, weights: Floats, entry: SearchEntry
) -> SearchEntry:
    """The entry with the fewest lists, which are set in `lists`, by which queries with weights [Q,
    width] float32 reach its target, and under the worst filter `WORST_RECALL`."""
    index = SearchIndex(
        lists, store.descriptors_of, len(store), "", lambda: FlatBytes(store.blocks())
    )
    filters = [(own, tenth_best(index, weights, own)) for own in (None, *draw_filters(store))]

    def worst_of(some: list[tuple[Allowed | None, Floats]]) -> float:
        return min((recall_of(index, weights, *own) for own in some), default=1.0)

    for probes in _growing(4, lists.lists):
        lists.probes = probes
        recall = worst_of(filters[:1])
        if recall >= entry.target:
            break
    for probes in _growing(lists.probes, lists.lists):
        lists.filtered_probes = probes
        worst = worst_of(filters[1:])
        if worst >= WORST_RECALL:
            break
    return replace(
        entry,
        probes=lists.probes,
        filtered_probes=lists.filtered_probes,
        recall=recall,
        worst_recall=worst,
    )


def _growing(start: int, most: int) -> Iterator[int]:
    """`start` and half more each time; `most` last."""
    while start < most:
        yield start
        start = max(start + 1, round(start * 1.5))
    yield most


def drawn_weights(store: Store, requests: Requests) -> Floats:
    """Weights [any, width] of requests for drawn pictures: the first `QUERIES` measure recall, the
    others sort rows into lists."""
    drawn = np.random.default_rng(0).permutation(len(store))[: QUERIES + _REQUESTS]
    return requests(store.layout, store.schema, store.descriptors_of(drawn), 0)


def sorted_into(store: Store, count: int, weights: Floats) -> Rows:
    """In which of `count` lists each row belongs [M], by weights of `drawn_weights`."""
    others = weights[QUERIES:] if len(weights) > QUERIES else weights
    into, centres = train_cells(store.blocks(), len(store), count, others)
    return nearest_centre(store.blocks(), centres, into)


def build_search(
    store: Store, target: float, asked: str | None, requests: Requests | None, progress: Progress
) -> SearchEntry:
    """Choose how a gallery is searched, as `choose_factory`, and make what that takes; for the
    holder of the lock. `requests` makes the queries with which recall is measured, likeness by
    default. Raises UsageError as `choose_factory`, ResourceError: disk or memory full."""
    rows, width = len(store), store.layout.width
    factory = choose_factory(rows, target, asked)
    entry = SearchEntry(factory, asked is not None, target)
    count = lists_of(factory)
    if not count:
        return entry
    started = time.monotonic()
    progress.say(f"sorting {rows:,} descriptors into {count:,} lists")
    weights = drawn_weights(store, requests or likeness_requests)
    lists = sorted_into(store, count, weights)
    index = fill_lists(store.blocks(), width, lists, count)
    entry = measure_probes(InvertedLists(index, 1, 1), store, weights[:QUERIES], entry)
    entry = replace(entry, file=commit_lists(store.folder, index))
    progress.say(f"search: {in_words(entry)}, in {time.monotonic() - started:.0f} s")
    return entry


def carry_lists(store: Store, entry: SearchEntry, origin: Rows) -> SearchEntry:
    """The search of an edited index: kept rows stay in their lists, new ones join the nearest.

    `entry` is that of the version before, whose measured recalls stay; `origin` the row of each
    image in it [M], -1: it is new. Raises CorruptStoreError, ResourceError.
    """
    if entry.file is None:
        return entry
    with open_file(store.folder, entry.file) as handle:
        old = open_lists(store.folder, entry, handle)
    lists = old.list_of_rows()[np.maximum(origin, 0)]
    new = np.flatnonzero(origin < 0)
    lists[new] = nearest_centre([store.descriptors_of(new)], old.centroids())
    index = fill_lists(store.blocks(), store.layout.width, lists, old.lists)
    return replace(entry, file=commit_lists(store.folder, index))
