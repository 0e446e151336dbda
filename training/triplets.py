"""Triplets sampled over a whole split, as ASEN's recipe has them (Ma et al., AAAI 2020).

An attribute is drawn, then one of its values, then two images that have it and one that is labelled
in the attribute and lacks it; the three are compared under that attribute's type condition. Both
draws are uniform, so rare attributes and values are seen as often as common ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import DataError
from training.schema import Schema

_Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Triplets:
    """M triplets of images."""

    rows: _Numbers  # anchor, positive and negative, dataset rows [3, M] int64
    attribute: _Numbers  # number of the attribute they are compared in, [M] int64
    value: _Numbers  # flat index of the value that anchor and positive have, [M] int64


class TripletSampler:
    """The lists that triplets are drawn from, made once; drawing is then a matter of look-ups.

    A value can be drawn when at least two images have it and at least one is labelled in its
    attribute (has some value of it) and is known to lack this one. An attribute without such a
    value is left out.

    Args:
        labels: label states [N, K] int8 in {-1, 0, +1}.
        schema: attributes and values.
        rows: dataset rows to draw from, distinct, [R] int64.

    Raises:
        DataError: no value can be drawn.
    """

    def __init__(self, labels: NDArray[np.int8], schema: Schema, rows: _Numbers) -> None:
        states = np.ascontiguousarray(labels[rows].T)  # [K, R]
        values: list[int] = []
        having: list[_Numbers] = []
        gaps: list[_Numbers] = []
        labelled: list[_Numbers] = []
        for attribute in range(len(schema.attributes)):
            where = schema.slice_of(attribute)
            known = np.flatnonzero((states[where] == 1).any(axis=0))
            labelled.append(rows[known])
            for value in range(where.start, where.stop):
                has = np.flatnonzero(states[value] == 1)
                excluded = np.flatnonzero(states[value, known] != -1)
                if len(has) >= 2 and len(excluded) < len(known):
                    values.append(value)
                    having.append(rows[has])
                    gaps.append(excluded - np.arange(len(excluded)))
        if not values:
            raise DataError(
                f"no triplet can be drawn from {len(rows)} images: no value is held by two of "
                "them while a third, labelled in the same attribute, lacks it"
            )
        self._value = np.array(values, dtype=np.int64)
        self._attribute = schema.attribute_of[self._value]
        self._drawable, self._first, self._values = np.unique(
            self._attribute, return_index=True, return_counts=True
        )
        self._having, self._having_start, self._having_count = _flat(having)
        self._labelled, starts, counts = _flat(labelled)
        self._labelled_start = starts[self._attribute]
        gap, self._gap_start, gap_count = _flat(gaps)
        self._negatives = counts[self._attribute] - gap_count
        # One ascending list for one search over all values: each value's own is moved past the
        # one before it.
        self._span = len(rows) + 1
        self._gap = gap + np.repeat(np.arange(len(values)), gap_count) * self._span

    def sample(self, count: int, generator: torch.Generator) -> Triplets:
        """Draw `count` triplets, with replacement."""
        draws = torch.rand(5, count, dtype=torch.float64, generator=generator).numpy()
        number = _draw(draws[0], len(self._drawable))
        value = self._first[number] + _draw(draws[1], self._values[number])
        start, held = self._having_start[value], self._having_count[value]
        anchor = _draw(draws[2], held)
        positive = _draw(draws[3], held - 1)
        positive += positive >= anchor  # any image that has the value but the anchor
        rows = [self._having[start + anchor], self._having[start + positive]]
        rows.append(self._negative(value, _draw(draws[4], self._negatives[value])))
        return Triplets(np.stack(rows), self._attribute[value], self._value[value])

    def _negative(self, value: _Numbers, rank: _Numbers) -> _Numbers:
        """The rank-th image that is labelled in the value's attribute and lacks the value.

        Lists of them would be nearly all images for each of a thousand values. The few that are
        excluded are listed instead: the rank-th of the others lies as many places further on as
        there are excluded places e_i with e_i - i <= rank.
        """
        passed = np.searchsorted(self._gap, rank + value * self._span, side="right")
        place = rank + passed - self._gap_start[value]
        chosen: _Numbers = self._labelled[self._labelled_start[value] + place]
        return chosen


def _flat(lists: list[_Numbers]) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Lists end to end, and where each starts and how long it is."""
    counts = np.array([len(one) for one in lists], dtype=np.int64)
    return np.concatenate(lists), np.cumsum(counts) - counts, counts


def _draw(uniform: NDArray[np.float64], choices: _Numbers | int) -> _Numbers:
    """Uniform draws in [0, 1) to whole numbers 0..choices-1."""
    return (uniform * choices).astype(np.int64)
