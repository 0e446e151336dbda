"""How many inverted lists a query has to read, measured: without a filter, and under many.

Filters cut the lists thin: what they leave may lie in lists that an unfiltered query need not read.
So queries with a filter have a number of their own, from the worst of twenty filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from indexer.flat_bytes import Allowed
from indexer.index_choice import WORST_RECALL
from indexer.inverted_lists import InvertedLists
from indexer.manifest import SearchEntry
from indexer.search import GATHER, SearchIndex
from indexer.store import Store
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.schema import Schema

Requests = Callable[[DescriptorLayout, Schema, Bytes, int], Floats]
"""Makes query vectors like those to come: of layout, schema, descriptors [Q, width] of pictures and
a seed, the weights [Q, width]."""

HITS = 10
"""The k of the recall@k that is measured."""

QUERIES = 64
"""That recall is measured with."""

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
    """The entry with the fewest lists by which queries reach its recall@10, and the worst filter
    `WORST_RECALL`.

    Args:
        lists: filled; its numbers of probes are set.
        store: the descriptors.
        weights: of Q queries, [Q, width] float32.
        entry: says which recall is wanted.
    """
    index = SearchIndex(lists, store.descriptors_of, len(store), "")
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
