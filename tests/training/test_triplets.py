"""Sampled triplets: what must hold of each, and how often each choice comes up."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from training.errors import DataError
from training.sampling import Triplets, TripletSampler
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue", "green"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)

# floral striped solid | red blue green | round v-neckline
LABELS = np.array(
    [
        [1, -1, -1, 1, -1, -1, 1, -1],
        [1, -1, -1, 1, 1, -1, 0, 0],
        [1, -1, -1, -1, 1, 0, 0, 0],  # whether it has green is not known
        [-1, 1, -1, -1, -1, 1, 0, 0],
        [-1, 1, -1, -1, -1, 1, 1, -1],
        [-1, -1, 1, 0, 0, 0, 1, -1],  # the only solid one; its colours are not known
        [0, 0, 0, -1, -1, -1, 0, 0],  # known to have none of the colours: no negative either
        [1, -1, -1, 1, -1, -1, -1, 1],  # not among the rows
    ],
    dtype=np.int8,
)
ROWS = np.array([0, 1, 2, 3, 4, 5, 6], dtype=np.int64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _possible(labels: np.ndarray, rows: np.ndarray) -> dict[int, set[tuple[int, int, int]]]:
    """Every triplet of each value, by trying all."""
    out: dict[int, set[tuple[int, int, int]]] = {}
    for attribute in range(len(SCHEMA.attributes)):
        where = SCHEMA.slice_of(attribute)
        for k in range(where.start, where.stop):
            found = {
                (int(a), int(p), int(n))
                for a, p, n in product(rows, rows, rows)
                if a != p
                and labels[a, k] == 1
                and labels[p, k] == 1
                and labels[n, k] == -1
                and 1 in labels[n, where]
            }
            if found:
                out[k] = found
    return out


def _drawn(triplets: Triplets, k: int) -> Counter[tuple[int, int, int]]:
    columns = triplets.rows[:, triplets.value == k].T
    return Counter((int(a), int(p), int(n)) for a, p, n in columns)


def test_every_possible_triplet_of_a_value_and_no_other_equally_often() -> None:
    count = 60_000
    triplets = TripletSampler(LABELS, SCHEMA, ROWS).sample(count, _generator())
    assert triplets.rows.shape == (3, count)
    assert triplets.rows.dtype == triplets.attribute.dtype == np.int64
    possible = _possible(LABELS, ROWS)
    # solid has one image, and no image with a known collar lacks the round one.
    assert set(possible) == {0, 1, 3, 4, 5} == set(triplets.value.tolist())
    np.testing.assert_array_equal(triplets.attribute, SCHEMA.attribute_of[triplets.value])
    for k, expected in possible.items():
        drawn = _drawn(triplets, k)
        assert set(drawn) == expected
        mean = sum(drawn.values()) / len(expected)
        assert all(abs(n - mean) < 6 * mean**0.5 for n in drawn.values()), (k, drawn)


def test_attributes_then_values_are_uniform_whatever_their_counts() -> None:
    count = 60_000
    triplets = TripletSampler(LABELS, SCHEMA, ROWS).sample(count, _generator(1))
    shares = {k: float((triplets.value == k).mean()) for k in (0, 1, 3, 4, 5)}
    for k, share in shares.items():
        expected = 1 / 2 / (2 if k < 3 else 3)  # two attributes; two values of one, three of one
        assert abs(share - expected) < 0.01, shares


def test_triplets_of_random_labels_hold_in_every_row() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([-1, 0, 1], size=(300, SCHEMA.size), p=[0.5, 0.2, 0.3]).astype(np.int8)
    rows = np.sort(rng.choice(300, 200, replace=False)).astype(np.int64)
    got = TripletSampler(labels, SCHEMA, rows).sample(5000, _generator(2))
    anchor, positive, negative = got.rows
    assert np.isin(got.rows, rows).all()
    assert (anchor != positive).all()
    assert (labels[anchor, got.value] == 1).all()
    assert (labels[positive, got.value] == 1).all()
    assert (labels[negative, got.value] == -1).all()
    for attribute in range(3):
        mine = negative[got.attribute == attribute]
        assert (labels[mine, SCHEMA.slice_of(attribute)] == 1).any(axis=1).all()
    assert len(set(got.rows[0].tolist())) > 150  # not always the same few


def test_a_seed_gives_the_same_triplets_and_two_draws_differ() -> None:
    sampler = TripletSampler(LABELS, SCHEMA, ROWS)
    generator = _generator(7)
    first, second = sampler.sample(50, generator), sampler.sample(50, generator)
    assert not np.array_equal(first.rows, second.rows)
    again = TripletSampler(LABELS, SCHEMA, ROWS).sample(50, _generator(7))
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.attribute, again.attribute)
    assert sampler.sample(0, generator).rows.shape == (3, 0)


@pytest.mark.parametrize("rows", [[], [0], [0, 1, 2], [0, 3]])
def test_labels_without_a_triplet_are_refused(rows: list[int]) -> None:
    with pytest.raises(DataError, match=f"from {len(rows)} images"):
        TripletSampler(LABELS[:, :3], Schema(SCHEMA.attributes[:1]), np.array(rows, int))
