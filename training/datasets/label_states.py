"""What adapters make of labels: states, categories, and splits where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS, Dataset, RetrievalList
from training.schema import Schema, normalise_name

CATEGORY_NAMES = ("category", "clothes-category")
"""Normalised names of the attribute that is the category of a garment."""


def states_of(schema: Schema, statements: Sequence[RetrievalList], count: int) -> NDArray[np.int8]:
    """Label states [count, K] int8 of statements that a row has a value.

    +1 for stated values, -1 for the other values of an attribute of which the row has a stated
    one, 0 for attributes about which nothing is stated.
    """
    states = np.zeros((count, schema.size), dtype=np.int8)
    for stated in statements:
        for attribute in range(len(schema.attributes)):
            states[stated.rows[stated.attributes == attribute], schema.slice_of(attribute)] = -1
    # Only now: a row may have several values of one attribute.
    for stated in statements:
        states[stated.rows, np.asarray(schema.offsets)[stated.attributes] + stated.values] = 1
    return states


def with_multi(schema: Schema, states: NDArray[np.int8]) -> Schema:
    """The schema, `multi` wherever a row of the states [N, K] has several values."""
    attributes = []
    for number, attribute in enumerate(schema.attributes):
        several = (states[:, schema.slice_of(number)] == 1).sum(axis=1) > 1
        attributes.append(replace(attribute, multi=attribute.multi or bool(several.any())))
    return Schema(tuple(attributes))


def dataset_of(
    name: str,
    root: Path,
    schema: Schema,
    paths: Sequence[str],
    statements: Sequence[RetrievalList],
    splits: NDArray[np.str_],
) -> Dataset:
    """The dataset of statements; its category is the attribute so called.

    -1 for a row without a category, or with several, which is noted. A schema without a category
    attribute, or with one of which no row has a single value, gives -1 everywhere and no names.
    """
    labels = states_of(schema, statements, len(paths))
    schema = with_multi(schema, labels)
    category = np.full(len(paths), -1, dtype=np.int64)
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded = [normalise_name(a.name) for a in schema.attributes]
    for number in (folded.index(n) for n in CATEGORY_NAMES if n in folded):
        attribute, states = schema.attributes[number], labels[:, schema.slice_of(number)] == 1
        counts = states.sum(axis=1)
        several = np.flatnonzero(counts > 1)
        if len(several):
            notes = (
                f"{attribute.name!r}: images of several values, whose category counts as unknown: "
                f"{len(several):,}, first {paths[several[0]]!r}",
            )
        if np.any(counts == 1):
            category[counts == 1], names = states.argmax(axis=1)[counts == 1], attribute.values
            break
    return Dataset(name, root, schema, paths, labels, category, names, splits, notes=notes)


def grouped_split(groups: NDArray[np.int64], seed: int = 0) -> NDArray[np.str_]:
    """Cut rows 8:1:1 into `train`, `valid` and `test` [N], all rows of a group into the same.

    Groups are dealt out from the largest to the smallest, those of one size in an order drawn
    from `seed`, each to the split that stays the least filled; so big items spread like small
    ones. With fewer than ten groups valid and test can stay empty.

    Args:
        groups: number of the item of each row [N], any integers.
        seed: of the order among groups of one size.
    """
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    quota = [share * len(groups) for share in (0.8, 0.1, 0.1)]
    filled = [0, 0, 0]
    split_of_group = np.empty(len(unique), dtype=np.int64)
    for group in np.lexsort((shuffled, -sizes)):
        size = int(sizes[group])
        chosen = min(range(3), key=lambda s: (filled[s] + size) / quota[s])
        filled[chosen] += size
        split_of_group[group] = chosen
    return np.array(SPLITS)[split_of_group[inverse.reshape(-1)]]


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Number of each name in order of first appearance; each empty name is one of its own."""
    numbers: dict[str | int, int] = {}
    keys = ((name or row) for row, name in enumerate(names))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
