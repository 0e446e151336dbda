"""How many inverted lists a query has to read, measured: without a filter, and under many.

Filters cut the lists thin: what they leave may lie in lists that an unfiltered query need not read.
So queries with a filter have a number of their own, from the worst of twenty filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.flat_bytes import Allowed, Bytes, Weights
from indexer.index_choice import WORST_RECALL
from indexer.inverted_lists import InvertedLists
from indexer.search import GATHER, SearchIndex
from training.descriptor import DescriptorLayout
from training.schema import Schema

Requests = Callable[[DescriptorLayout, Schema, Bytes, int], Weights]
"""Makes query vectors like those to come: of layout, schema, descriptors [Q, width] of pictures and
a seed, the weights [Q, width]."""

HITS = 10
"""The k of the recall@k that is measured."""

SEED = 0
QUERIES = 64
"""That recall is measured with."""

_FILTERS = 20
_SHARES = (0.001, 0.5)  # of the gallery that a filter leaves
_CHUNK = 65_536  # rows at a time
_ROUNDING = 1e-5  # of a score
_FIRST_PROBES, _MORE = 4, 1.5


@dataclass(frozen=True)
class Probes:
    """Lists that a query reads, with and without a filter, and the recalls that they give."""

    probes: int
    filtered: int
    recall: float
    worst_recall: float


def likeness_requests(
    layout: DescriptorLayout, schema: Schema, descriptors: Bytes, seed: int
) -> Weights:
    """Queries that look for the pictures' own bytes, about their mean; see `Requests`."""
    own = descriptors.astype(np.float32)
    weights: Weights = own - own.mean(0)
    return weights


def draw_filters(labels: NDArray[np.int8], blocks: Callable[[], Iterator[Bytes]]) -> list[Allowed]:
    """Twenty filters [M] bool as users may set, from half of the images to a thousandth.

    Each leaves the images that are known to have a value; where too few values are known, those
    that have it most surely. Filters that leave so few rows that each of them is read are no
    question, and left out.

    Args:
        labels: label states [M, K] int8.
        blocks: gives descriptors [n, width] uint8 of consecutive rows.
    """
    rows, values = labels.shape
    counts = np.zeros(values, dtype=np.int64)
    for start in range(0, rows, _CHUNK):
        counts += (labels[start : start + _CHUNK] == 1).sum(0)
    least = max(_SHARES[0] * rows, GATHER + 1)
    usable = np.flatnonzero((counts >= least) & (counts <= _SHARES[1] * rows))
    usable = usable[np.argsort(counts[usable], kind="stable")]
    spread = np.linspace(0, len(usable) - 1, min(_FILTERS, len(usable))).astype(int)
    filters = [labels[:, value] == 1 for value in usable[spread].tolist()]
    missing = _FILTERS - len(filters)
    if least <= _SHARES[1] * rows and values:
        random = np.random.default_rng(SEED)
        for count in np.geomspace(least, _SHARES[1] * rows, missing).astype(int).tolist():
            value = int(random.integers(values))
            chances = np.concatenate([block[:, value] for block in blocks()])
            allowed = np.zeros(rows, dtype=bool)
            allowed[np.argpartition(chances, rows - count)[rows - count :]] = True
            filters.append(allowed)
    return filters


def tenth_best(
    blocks: Iterable[Bytes], weights: Weights, filters: list[Allowed]
) -> NDArray[np.float32]:
    """Score of the tenth best row of every query under every filter, [filters, Q] float32.

    Args:
        blocks: descriptors [n, width] uint8 of consecutive rows.
        weights: of Q queries, [Q, width] float32.
        filters: [M] bool each, at least ten rows.
    """
    best = np.full((len(filters), len(weights), HITS), -np.inf, dtype=np.float32)
    start = 0
    for block in blocks:
        for first in range(0, len(block), _CHUNK):
            part = block[first : first + _CHUNK].astype(np.float32)
            scores = weights @ part.T
            for number, allowed in enumerate(filters):
                own = scores[:, allowed[start : start + len(part)]]
                both = np.concatenate([best[number], own], 1)
                best[number] = np.partition(both, -HITS, axis=1)[:, -HITS:]
            start += len(part)
    tenth: NDArray[np.float32] = best.min(2)
    return tenth


def measure_probes(
    lists: InvertedLists,
    gather: Callable[[NDArray[np.int64]], Bytes],
    blocks: Callable[[], Iterator[Bytes]],
    labels: NDArray[np.int8],
    weights: Weights,
    target: float,
) -> Probes:
    """The fewest lists with which queries reach a recall@10.

    Args:
        lists: filled; its numbers of probes are set.
        gather: descriptors of rows.
        blocks: gives all descriptors, in row order.
        labels: label states [M, K] int8, from which filters are drawn.
        weights: of Q queries, [Q, width] float32.
        target: mean recall without a filter, 0..1; the worst filter's is `WORST_RECALL`.
    """
    rows = len(labels)
    everything = np.ones(rows, dtype=bool)
    filters = draw_filters(labels, blocks)
    tenth = tenth_best(blocks(), weights, [everything, *filters])
    tenth -= _ROUNDING * 255 * np.abs(weights).sum(1)
    index = SearchIndex(lists, gather, rows, "")

    def recall(allowed: Allowed | None, limit: NDArray[np.float32]) -> float:
        _, scores = index.search(weights, HITS, allowed)
        return float((scores >= limit[:, None]).mean())

    alone = 0.0
    for probes in _growing(_FIRST_PROBES, lists.lists):
        lists.probes = lists.filtered_probes = probes
        alone = recall(None, tenth[0])
        if alone >= target:
            break
    worst, left = 1.0, list(zip(filters, tenth[1:], strict=True))
    for probes in _growing(lists.probes, lists.lists):
        lists.filtered_probes = probes
        found = [recall(allowed, limit) for allowed, limit in left]
        worst = min(found, default=1.0)
        if worst >= WORST_RECALL:
            break
    return Probes(lists.probes, lists.filtered_probes, alone, worst)


def _growing(start: int, most: int) -> Iterator[int]:
    """`start` and ever more; `most` last."""
    value = start
    while value < most:
        yield value
        value = max(value + 1, round(value * _MORE))
    yield most
