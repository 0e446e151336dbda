"""The query vector against the formula spelled out, over numbers instead of bytes."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.query_vector import (
    ALONE,
    COMPARED,
    GARMENT_SHARE,
    KEEP,
    NAMED_ROOTS,
    NUANCE,
    PART,
    ROOTS,
    SHOWN,
    Asked,
    formula_of,
)
from training.descriptor import GARMENT, ROOT, DescriptorLayout
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
LAYOUT = DescriptorLayout(7, ((0, 4), (1, 4), (2, 4), (GARMENT, 12)))
COUNT = 40


def _images() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    chances = draws.random((COUNT, 7)).astype(np.float32)
    for number in (0, 2):
        own = chances[:, SCHEMA.slice_of(number)]
        own /= own.sum(1, keepdims=True)
    parts = [draws.standard_normal((COUNT, size)) for _, size in LAYOUT.groups]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    return chances, np.concatenate(unit, 1).astype(np.float32)


def _spelled_out(
    image: int, wanted: list[int], unwanted: list[int], like: list[int], keep: float
) -> list[float]:
    chances, nuance = _images()
    starts = np.cumsum([0] + [size for _, size in LAYOUT.groups])

    def cosine(group: int, other: int) -> float:
        where = slice(starts[group], starts[group + 1])
        return (1 + float(nuance[image, where] @ nuance[other, where])) / 2

    named = {int(SCHEMA.attribute_of[v]) for v in [*wanted, *unwanted]}
    kept = like or [n for n in range(3) if n not in named]
    scores = []
    for other in range(COUNT):
        shared = []
        for number in kept:
            p, q = (chances[i, SCHEMA.slice_of(number)] for i in (image, other))
            p = p / p.sum()
            roots = 0 if like else ROOTS
            shared.append(float(roots * (p @ q**ROOT) + (1 - roots) * (p @ q)))
        told = [cosine(number, other) for number in kept]
        if not kept:
            alike = cosine(3, other)
        elif like:
            alike = (1 - COMPARED) * np.mean(shared) + COMPARED * np.mean(told)
        else:
            both = (1 - GARMENT_SHARE) * np.mean(told) + GARMENT_SHARE * cosine(3, other)
            share = NUANCE if named else ALONE
            alike = (1 - share) * np.mean(shared) + share * both
        each, shown = [], 1.0
        for value in [*wanted, *unwanted]:
            p, own = float(chances[other, value]), float(chances[image, value])
            told = NAMED_ROOTS * p**ROOT + (1 - NAMED_ROOTS) * p
            each.append(told if value in wanted else 1 - told)
            shown *= own if value in wanted else 1 - own
        there = (1 - PART) * np.prod(each) + PART * np.mean(each) if each else 0.0
        change = (1 - keep) * (1 + SHOWN * shown) if named else 0.0
        scores.append((change * there + keep * alike) / (change + keep))
    return scores


@pytest.mark.parametrize(
    ("wanted", "unwanted", "like", "keep"),
    [
        ([], [], [], None),
        ([], [], [1, 2], None),
        ([0], [], [], None),
        ([1, 5], [3], [], 0.2),
        ([], [6], [0], 1.0),
        ([4], [], [], 0.0),
    ],
)
def test_scores_are_those_of_the_formula(
    wanted: list[int], unwanted: list[int], like: list[int], keep: float | None
) -> None:
    chances, nuance = _images()
    descriptors = LAYOUT.pack(chances, nuance)
    formula = formula_of(LAYOUT, SCHEMA, chances[5], nuance[5], Asked(wanted, unwanted, like, keep))
    got = formula.scores(descriptors)
    if formula.linear:
        np.testing.assert_allclose(formula.vector.scores(descriptors), got, atol=1e-5)
    expected = _spelled_out(5, wanted, unwanted, like, KEEP if keep is None else keep)
    np.testing.assert_allclose(got, expected, atol=0.006)  # a byte is 1 / 255, nuance spans more
    assert got.min() >= -0.01
    assert got.max() <= 1.01


def test_a_descriptor_tells_what_was_packed() -> None:
    chances, nuance = _images()
    descriptors = LAYOUT.pack(chances, nuance)
    assert descriptors.shape == (COUNT, 48)
    assert descriptors.dtype == np.uint8
    np.testing.assert_allclose(LAYOUT.chances(descriptors), chances, atol=0.004)
    np.testing.assert_allclose(LAYOUT.nuance_of(descriptors), nuance, atol=0.004)
    tiny = np.full((1, 7), 1e-3, dtype=np.float32)
    np.testing.assert_allclose(LAYOUT.chances(LAYOUT.pack(tiny, nuance[:1])), tiny, rtol=0.05)
