"""How well images are found by several values at once: `same` and `but` (EVALUATION.md).

`same`: the query image has all the values. `but`: it is known to lack at least one of them. A
candidate is relevant if it has them all; the query itself takes no part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import Rows, check_split
from retrieval.evaluation.report_grid import shown
from retrieval.evaluation.scorer import (
    LEAST_RELEVANT,
    K,
    Scorer,
    first_hits,
    has_all,
    kept_share,
    mean_of_known,
)
from retrieval.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    expected_average_precision,
)
from training.datasets.dataset import Dataset
from training.schema import Schema

SIZES = (2, 3)
"""Numbers of values of a combination."""


@dataclass(frozen=True)
class Combination:
    """Values of different attributes, by flat index, ascending, and how many images of the split
    that it was drawn from have them all."""

    values: tuple[int, ...]
    relevant: int


def candidate_rows(dataset: Dataset, split: str, values: Sequence[int]) -> NDArray[np.int64]:
    """Rows of the split of which is known whether they have each of the values (by flat index),
    ascending [M] int64."""
    rows = dataset.rows_of(split)
    known = (dataset.labels[np.ix_(rows, np.array(values, dtype=np.int64))] != 0).all(axis=1)
    return np.asarray(rows[known], dtype=np.int64)


def draw_combinations(dataset: Dataset, split: str, count: int, seed: int = 0) -> list[Combination]:
    """Draw at most `count` combinations evenly among those that can be measured, by turns of each
    size, in a fixed order; DataError if the split has no images.

    A combination can be measured if more than `LEAST_RELEVANT` images have all its values (one of
    them is the query) and at least one image is known to lack some of them (the query of `but`).
    """
    check_split(dataset, split)
    frequent = list(_frequent(dataset, split))
    eligible = [[c for c in frequent if len(c.values) == size] for size in SIZES]
    generator = np.random.default_rng(seed)

    def measurable(found: list[Combination]) -> Iterator[Combination]:
        for number in generator.permutation(len(found)):
            if len(candidate_rows(dataset, split, found[number].values)) > found[number].relevant:
                yield found[number]

    turns = zip_longest(*(measurable(found) for found in eligible))
    return list(islice((one for turn in turns for one in turn if one is not None), count))


def _frequent(dataset: Dataset, split: str) -> Iterator[Combination]:
    """All combinations that more than `LEAST_RELEVANT` images have.

    Depth first: only a combination that is frequent is extended, by values of later attributes.
    """
    schema = dataset.schema
    has = dataset.labels[dataset.rows_of(split)] == 1

    def extend(values: tuple[int, ...], rows: NDArray[np.int64]) -> Iterator[Combination]:
        first = schema.offsets[int(schema.attribute_of[values[-1]]) + 1] if values else 0
        counts = has[rows, first:].sum(axis=0)
        for column in np.flatnonzero(counts > LEAST_RELEVANT):
            flat = first + int(column)
            longer = (*values, flat)
            if len(longer) > 1:
                yield Combination(longer, int(counts[column]))
            if len(longer) < max(SIZES):
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


@dataclass(frozen=True)
class CombinationScore:
    """Scores of one kind of queries. MAP in percent, precision and keep in [0, 1].

    Args:
        precision_at_10: mean share of the first 10 hits that have all the values.
        precision_ceiling: what a perfect ranking reaches (5 relevant images allow only 0.5).
        precision_chance: what a random ranking reaches.
        map, chance: of `same`: mean AP, and what a random ranking reaches.
        ci, precision_ci: 95 % bootstrap intervals, whole combinations resampled.
        keep_at_10: of `but`: mean over the queries of `kept_share` of the first 10 hits; None if no
            query has an attribute to compare.
        keep_chance: the same of all candidates.
    """

    queries: int = field(metadata=shown("queries"))
    precision_at_10: float = field(metadata=shown("all-values precision@10", ".3f"))
    precision_ci: Interval = field(metadata=shown("95 % CI", ".3f"))
    precision_ceiling: float = field(metadata=shown("best reachable", ".3f"))
    precision_chance: float = field(metadata=shown("chance", ".3f"))
    map: float | None = field(default=None, metadata=shown("MAP, percent", ".2f"))
    ci: Interval | None = field(default=None, metadata=shown("95 % CI", ".2f"))
    chance: float | None = field(default=None, metadata=shown("chance", ".2f"))
    keep_at_10: float | None = field(default=None, metadata=shown("keep@10", ".3f"))
    keep_chance: float | None = field(default=None, metadata=shown("chance", ".3f"))


@dataclass(frozen=True)
class CombinationReport:
    """Both scores, how many combinations and queries they rest on, and what ranked the images."""

    same: CombinationScore
    but: CombinationScore
    combinations: int
    queries_per_combination: int
    seed: int
    ranked_by: str


def draw_queries(
    dataset: Dataset, split: str, combination: Combination, count: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Rows that query one combination, drawn among the images whose named values are known: at most
    `count` of `same`, which have all its values, and of `but`, which lack at least one, ascending.
    Seed and values settle the draw, whatever else is drawn."""
    rows = candidate_rows(dataset, split, combination.values)
    having = has_all(dataset, rows, combination.values)
    generator = np.random.default_rng([seed, *combination.values])

    def draw(pool: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(generator.choice(pool, size=min(count, len(pool)), replace=False))

    return {"same": draw(rows[having]), "but": draw(rows[~having])}


def evaluate_combinations(
    dataset: Dataset,
    split: str,
    scorer: Scorer,
    combinations: Sequence[Combination],
    queries_per_combination: int = 20,
    seed: int = 0,
) -> CombinationReport:
    """Search the split by every combination with queries that have its values and that lack some.

    The dataset's rows are the scorer's; all queries of one combination come together. There is at
    least one combination, drawn from this split; of each kind of queries there are at most
    `queries_per_combination`. `seed` is of the draw of queries and the intervals.
    """
    figures: dict[str, list[tuple[float, ...]]] = {"same": [], "but": []}
    for number, combination in enumerate(combinations):
        candidates = candidate_rows(dataset, split, combination.values)
        drawn = draw_queries(dataset, split, combination, queries_per_combination, seed)
        for kind, queries in drawn.items():
            asked = ((combination.values, query, candidates) for query in queries.tolist())
            figures[kind] += [(number, *_figures(dataset, scorer, *one)) for one in asked]
    same, but = (_score(np.array(found).T, seed) for found in figures.values())
    return CombinationReport(
        same=replace(same, keep_at_10=None, keep_chance=None),
        but=replace(but, map=None, ci=None, chance=None),
        combinations=len(combinations),
        queries_per_combination=queries_per_combination,
        seed=seed,
        ranked_by=scorer.ranked_by,
    )


def _figures(
    dataset: Dataset, scorer: Scorer, values: Sequence[int], query: int, candidates: Rows
) -> tuple[float, ...]:
    """Of one query: precision, its ceiling and chance, AP and its chance, keep and its chance."""
    scores = scorer.named(query, values)
    beside = candidates[candidates != query]
    relevant = has_all(dataset, beside, values)
    hits = first_hits(scores, beside)
    total, pool = relevant.sum(keepdims=True), np.array([len(beside)])
    return (
        has_all(dataset, hits, values).sum() / K,
        min(total[0], K) / K,
        # Of the first K of a random ranking R/M are relevant; with fewer than K candidates, all R.
        min(len(beside), K) / K * total[0] / max(len(beside), 1),
        100 * average_precision(scores[beside][None], relevant[None])[0],
        100 * expected_average_precision(total, pool)[0],
        kept_share(dataset, query, hits, values),
        kept_share(dataset, query, beside, values),
    )


def _score(figures: NDArray[np.float64], seed: int) -> CombinationScore:
    """Means of [8, Q]: the combination of each query, and its figures."""
    combination, precision, ceiling, precision_chance, ap, chance, *keep = figures
    return CombinationScore(
        queries=len(ap),
        precision_at_10=float(precision.mean()),
        precision_ci=bootstrap_interval(precision, combination, seed=seed),
        precision_ceiling=float(ceiling.mean()),
        precision_chance=float(precision_chance.mean()),
        map=float(ap.mean()),
        ci=bootstrap_interval(ap, combination, seed=seed),
        chance=float(chance.mean()),
        keep_at_10=mean_of_known(keep[0]),
        keep_chance=mean_of_known(keep[1]),
    )
