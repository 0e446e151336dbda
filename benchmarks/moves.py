"""Changes of one attribute, as the manipulation protocol draws them: which picture, which
attribute, which new values. An attribute's values are compared as a set, none known being one too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.schema import Schema


@dataclass(frozen=True)
class Moves:
    """M changes: of which pictures, of which attribute, to which code of new values; [M] int64."""

    rows: NDArray[np.int64]
    attributes: NDArray[np.int64]
    new: NDArray[np.int64]

    def some(self, places: NDArray[np.int64]) -> Moves:
        """Those at some places."""
        return Moves(self.rows[places], self.attributes[places], self.new[places])


@dataclass(frozen=True)
class Coded:
    """Labels with every set of values that an attribute has somewhere numbered.

    Args:
        codes: number of the set [N, A] int64; 0 is the empty set: not known.
        sets: per attribute, which values each set holds, [sets, n] float32.
    """

    codes: NDArray[np.int64]
    sets: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, labels: NDArray[np.int8], schema: Schema) -> Coded:
        """Number the sets of values in label states [N, K]."""
        codes, sets = [], []
        for number in range(len(schema.attributes)):
            has = labels[:, schema.slice_of(number)] == 1
            with_empty = np.concatenate([np.zeros_like(has[:1]), has])
            found, inverse = np.unique(with_empty, axis=0, return_inverse=True)
            codes.append(inverse.reshape(-1)[1:])  # rows are sorted: the empty set comes first
            sets.append(found.astype(np.float32))
        return cls(np.stack(codes, axis=1).astype(np.int64), tuple(sets))

    def indicators(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Which values are held, [M, K] of 0 and 1, of codes [M, A]."""
        parts = [held[codes[:, number]] for number, held in enumerate(self.sets)]
        return np.concatenate(parts, axis=1)

    def nearest(
        self, targets: NDArray[np.int64], moves: Moves, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """For each target [M, A], a picture with the new values and most of the other labels: one
        that has them all if there is one; drawn among equals. Rows [M]."""
        agree = np.zeros((len(targets), len(self.codes)), dtype=np.float32)
        for number in range(self.codes.shape[1]):
            own = self.codes[:, number][None] == targets[:, number][:, None]
            agree += np.where(moves.attributes[:, None] == number, self.codes.shape[1], 1) * own
        return np.asarray((agree + 0.5 * rng.random(agree.shape, np.float32)).argmax(axis=1))

    def different(self, targets: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """For each target [M, A], a picture whose labels are not the same, while there are any."""
        drawn = rng.integers(len(self.codes), size=len(targets))
        for _ in range(20):
            same = (self.codes[drawn] == targets).all(axis=1)
            if not same.any():
                break
            drawn[same] = rng.integers(len(self.codes), size=int(same.sum()))
        return drawn


def whole_targets(coded: Coded, moves: Moves) -> NDArray[np.int64]:
    """Codes [M, A] of the pictures with the change made."""
    targets = coded.codes[moves.rows].copy()
    targets[np.arange(len(targets)), moves.attributes] = moves.new
    return targets


def exact_moves(coded: Coded) -> Moves:
    """Every change to other known values for which some picture has exactly the labels that
    result."""
    found: list[tuple[int, int, int]] = []
    for attribute in range(coded.codes.shape[1]):
        rest = np.delete(coded.codes, attribute, axis=1)
        groups = np.unique(rest, axis=0, return_inverse=True)[1].reshape(-1)
        there: dict[int, set[int]] = defaultdict(set)
        own = coded.codes[:, attribute]
        for group, code in zip(groups.tolist(), own.tolist(), strict=True):
            there[group].add(code)
        for row, (group, code) in enumerate(zip(groups.tolist(), own.tolist(), strict=True)):
            found += [(row, attribute, new) for new in sorted(there[group] - {0, code})]
    rows, attributes, new = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Moves(rows, attributes, new)


def draw_moves(
    coded: Coded, count: int, rng: np.random.Generator, among: Moves | None = None
) -> Moves:
    """Draw changes: the attribute uniformly, then one of its changes: of `among`, or if it is None
    any picture's to any other values that occur."""
    if among is not None:
        of = [np.flatnonzero(among.attributes == a) for a in range(coded.codes.shape[1])]
        of = [places for places in of if len(places)]
        which = rng.integers(len(of), size=count)
        return among.some(np.array([rng.choice(of[w]) for w in which], dtype=np.int64))
    several = [a for a, held in enumerate(coded.sets) if len(held) > 2]  # besides the empty set
    if not several:
        empty = np.zeros(0, dtype=np.int64)
        return Moves(empty, empty, empty)
    attributes = rng.choice(several, count)
    rows = rng.integers(len(coded.codes), size=count)
    kinds = np.array([len(held) for held in coded.sets])[attributes]
    old = coded.codes[rows, attributes]
    new = 1 + rng.integers(kinds - 1 - (old > 0))
    return Moves(rows, attributes, new + ((old > 0) & (new >= old)))
