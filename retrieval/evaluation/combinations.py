"""Combinations of values of different attributes that a split can be queried by, their draw, and
what a request that names values is measured by."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.protocol import check_split
from retrieval.metrics import top_k
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.schema import Schema

K = 10
"""Hits that are looked at."""


@dataclass(frozen=True)
class Combination:
    """Two or more values of different attributes.

    Args:
        values: flat indices, ascending.
        relevant: images of the split that it was drawn from that have them all.
    """

    values: tuple[int, ...]
    relevant: int


def candidate_rows(dataset: Dataset, split: str, values: Sequence[int]) -> NDArray[np.int64]:
    """Rows of the split of which is known whether they have each of the values (by flat index),
    ascending [M] int64."""
    rows = dataset.rows_of(split)
    known = (dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))] != 0).all(axis=1)
    return np.asarray(rows[known], dtype=np.int64)


def has_all(dataset: Dataset, rows: NDArray[np.int64], values: Sequence[int]) -> NDArray[np.bool_]:
    """Whether each row is known to have all the values, [M] bool."""
    states = dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))]
    return np.asarray((states == 1).all(axis=1))


def first_hits(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first `K` of some rows by (-score, row), fewer if there are fewer; scores are of all."""
    found = top_k(scores[rows][None, :], K)[0]
    return np.asarray(rows[found[found >= 0]])


def kept_share(
    dataset: Dataset, query: int, rows: NDArray[np.int64], named: Sequence[int]
) -> float:
    """Over the attributes that were not named and are known for both, the share of images whose
    value equals the query's: keep@10 where `rows` are the hits.

    Of a multi-valued attribute one common value is enough. NaN where nothing can be compared.
    """
    schema = dataset.schema
    equal = comparable = 0
    for attribute in set(range(len(schema.attributes))) - set(schema.attribute_of[list(named)]):
        where = schema.slice_of(attribute)
        own = dataset.labels[query, where] == 1
        if own.any():
            has = dataset.labels[rows, where] == 1
            comparable += int(has.any(axis=1).sum())
            equal += int(has[:, own].any(axis=1).sum())
    return equal / comparable if comparable else math.nan


def mean_of_known(figures: NDArray[np.float64]) -> float | None:
    """Mean of those that are not NaN; None if all are."""
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if len(known) else None


def draw_combinations(
    dataset: Dataset,
    split: str,
    count: int,
    sizes: Sequence[int] = (2, 3),
    seed: int = 0,
    min_relevant: int = 5,
) -> list[Combination]:
    """Draw combinations uniformly among those that can be measured, by turns of each size.

    A combination can be measured if more than `min_relevant` images have all its values (so that
    `min_relevant` remain when one of them is the query) and at least one image is known to lack
    some of them (the query of `but`).

    Returns:
        At most `count` combinations in a fixed order; fewer, or none, if there are no more.

    Raises:
        UsageError: if `count` < 1 or a size < 2.
        DataError: if the split has no images.
    """
    if count < 1 or not sizes or min(sizes) < 2:
        raise UsageError(
            f"count must be at least 1 and every size at least 2, not {count} and {list(sizes)}"
        )
    check_split(dataset, split)
    eligible: dict[int, list[Combination]] = {size: [] for size in sorted(set(sizes))}
    for combination in _frequent(dataset, split, max(sizes), min_relevant + 1):
        if len(combination.values) in eligible:
            eligible[len(combination.values)].append(combination)
    generator = np.random.default_rng(seed)

    def measurable(found: list[Combination]) -> Iterator[Combination]:
        for number in generator.permutation(len(found)):
            if len(candidate_rows(dataset, split, found[number].values)) > found[number].relevant:
                yield found[number]

    drawn: list[Combination] = []
    turns = [measurable(found) for found in eligible.values()]
    while turns:
        for turn in list(turns):
            found = next(turn, None)
            if found is None:
                turns.remove(turn)
            else:
                drawn.append(found)
            if len(drawn) == count:
                return drawn
    return drawn


def _frequent(dataset: Dataset, split: str, largest: int, least: int) -> Iterator[Combination]:
    """All combinations of 2 to `largest` values that at least `least` images have.

    Depth first: only a combination that is frequent is extended, by values of later attributes.
    """
    schema = dataset.schema
    has = dataset.labels[dataset.rows_of(split)] == 1

    def extend(values: tuple[int, ...], rows: NDArray[np.int64]) -> Iterator[Combination]:
        first = schema.offsets[int(schema.attribute_of[values[-1]]) + 1] if values else 0
        counts = has[rows, first:].sum(axis=0)
        for column in np.flatnonzero(counts >= least):
            flat = first + int(column)
            longer = (*values, flat)
            if len(longer) > 1:
                yield Combination(longer, int(counts[column]))
            if len(longer) < largest:
                yield from extend(longer, rows[has[rows, flat]])

    yield from extend((), np.arange(len(has), dtype=np.int64))


def save_combinations(
    path: Path, combinations: Sequence[Combination], schema: Schema, split: str, seed: int
) -> None:
    """Write a list as it was drawn, as JSON, with the names of the values and the schema's hash."""
    listed = [
        asdict(c) | {"names": [schema.value_names[v] for v in c.values]} for c in combinations
    ]
    data = {"schema": schema.hash, "split": split, "seed": seed, "combinations": listed}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
