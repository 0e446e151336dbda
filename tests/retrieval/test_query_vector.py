"""The query vector against the formula spelled out, over numbers instead of bytes."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.query_vector import (
    ALONE,
    COMPARED,
    GARMENT_SHARE,
    KEEP,
    NUANCE,
    ROOTS,
    SHOWN,
    query_vector,
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
            shared.append(float(ROOTS * (p @ q**ROOT) + (1 - ROOTS) * (p @ q)))
        told = [cosine(number, other) for number in kept]
        if not kept:
            alike = cosine(3, other)
        elif like:
            alike = (1 - COMPARED) * np.mean(shared) + COMPARED * np.mean(told)
        else:
            both = (1 - GARMENT_SHARE) * np.mean(told) + GARMENT_SHARE * cosine(3, other)
            share = NUANCE if named else ALONE
            alike = (1 - share) * np.mean(shared) + share * both
        has = [float(chances[other, v] ** ROOT) for v in wanted]
        has += [1 - float(chances[other, v] ** ROOT) for v in unwanted]
        counts = [1 + SHOWN * float(chances[image, v]) for v in wanted]
        counts += [1 + SHOWN * (1 - float(chances[image, v])) for v in unwanted]
        change = (1 - keep) * np.dot(counts, has)
        scores.append((change + keep * alike) / ((1 - keep) * sum(counts) + keep))
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
    vector = query_vector(LAYOUT, SCHEMA, chances[5], nuance[5], wanted, unwanted, like, keep)
    got = vector.scores(descriptors)
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
