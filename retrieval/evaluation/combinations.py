"""Combinations of values of different attributes that a split can be queried by, and their draw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.protocol import check_split
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.schema import Schema


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
    """Images of which is known whether they have each of the values.

    Args:
        dataset: images and labels.
        split: the split to search.
        values: flat indices.

    Returns:
        Rows of the split whose states of all `values` are known (not 0), ascending [M] int64.
    """
    rows = dataset.rows_of(split)
    known = (dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))] != 0).all(axis=1)
    return np.asarray(rows[known], dtype=np.int64)


def has_all(dataset: Dataset, rows: NDArray[np.int64], values: Sequence[int]) -> NDArray[np.bool_]:
    """Whether each row is known to have all the values, [M] bool."""
    states = dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))]
    return np.asarray((states == 1).all(axis=1))


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

    Args:
        dataset: images and labels.
        split: the split to search.
        count: how many to draw, at least 1.
        sizes: numbers of values of a combination, each at least 2.
        seed: the same seed draws the same list.
        min_relevant: relevant candidates that every query must have.

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
    shuffled = {n: iter([c[i] for i in generator.permutation(len(c))]) for n, c in eligible.items()}
    drawn: list[Combination] = []
    while shuffled and len(drawn) < count:
        for size in list(shuffled):
            found = _next_with_a_but(dataset, split, shuffled[size])
            if found is None:
                del shuffled[size]
            elif len(drawn) < count:
                drawn.append(found)
    return drawn


def _next_with_a_but(
    dataset: Dataset, split: str, combinations: Iterator[Combination]
) -> Combination | None:
    for combination in combinations:
        if len(candidate_rows(dataset, split, combination.values)) > combination.relevant:
            return combination
    return None


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
    """Write a list of combinations as JSON, with the names of the values and the schema's hash.

    Args:
        path: file to write; its folder must exist.
        combinations: the list, in order.
        schema: what the flat indices mean.
        split: the split that they were drawn from.
        seed: the seed that they were drawn with.
    """
    data = {
        "schema": schema.hash,
        "split": split,
        "seed": seed,
        "combinations": [
            {
                "values": list(c.values),
                "names": [schema.value_names[v] for v in c.values],
                "relevant": c.relevant,
            }
            for c in combinations
        ],
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load_combinations(path: Path, schema: Schema) -> list[Combination]:
    """Read what `save_combinations` wrote.

    Raises:
        DataError: if the file is missing or malformed, or was written for another schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        written_for = str(data["schema"])
        combinations = [
            Combination(tuple(int(v) for v in c["values"]), int(c["relevant"]))
            for c in data["combinations"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read combinations from {path}: {error!r}") from error
    if written_for != schema.hash:
        raise DataError(
            f"the combinations in {path} were drawn for another schema "
            f"({written_for[:12]}, this dataset's is {schema.hash[:12]}); draw them again"
        )
    return combinations
