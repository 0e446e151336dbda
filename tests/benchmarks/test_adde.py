"""ADDE-M on clusters whose geometry is known, and its parts against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.rivals.adde import (
    BLOCK,
    Adde,
    AddeScorer,
    Pictures,
    block_embed,
    semi_hard_loss,
    train_adde,
)
from training.errors import DataError
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("colour", ("red", "blue", "green", "black")),
        Attribute("length", ("short", "long")),
        Attribute("trim", ("lace", "fur", "bead"), multi=True),
    )
)


def pictures(count, seed):
    """Features that are a direction a value, plus noise; labels with some left out."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(SCHEMA.size, 24))
    labels = np.full((count, SCHEMA.size), -1, dtype=np.int8)
    rows = np.arange(count)
    labels[rows, rng.integers(4, size=count)] = 1
    labels[rows, 4 + rng.integers(2, size=count)] = 1
    labels[:, 6:][rng.random((count, 3)) < 0.4] = 1
    features = (labels == 1) @ directions + 0.5 * rng.normal(size=(count, 24))
    labels[rng.random(count) < 0.1, :4] = 0
    return features.astype(np.float32), labels


def test_semi_hard_loss_is_the_slow_one():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(14, 5, generator=generator, dtype=torch.float64)
    classes = torch.randint(4, (14,), generator=generator)
    unit = x / x.norm(dim=1, keepdim=True)
    losses = []
    for a in range(14):
        for p in range(14):
            distances = [
                float((unit[a] - unit[n]).square().sum())
                for n in range(14)
                if classes[n] != classes[a]
            ]
            if a == p or classes[a] != classes[p] or not distances:
                continue
            positive = float((unit[a] - unit[p]).square().sum())
            farther = [d for d in distances if d > positive]
            losses.append(max(0.0, 0.5 + positive - (min(farther) if farther else max(distances))))
    assert float(semi_hard_loss(x, classes)) == pytest.approx(np.mean(losses))
    assert float(semi_hard_loss(x, torch.zeros(14, dtype=torch.int64))) == 0


def test_exact_changes_are_all_that_a_search_finds():
    features, labels = pictures(40, 1)
    coded = Pictures(SCHEMA, features, labels)
    changes = coded.exact_changes()
    expected = set()
    for row in range(40):
        for other in range(40):
            differ = np.flatnonzero(coded.codes[row] != coded.codes[other])
            if len(differ) == 1 and coded.codes[other, differ[0]] > 0:
                expected.add((row, int(differ[0]), int(coded.codes[other, differ[0]])))
    assert set(map(tuple, changes.tolist())) == expected
    assert expected
    rng = np.random.default_rng(0)
    drawn = coded.draw_changes(30, rng, changes)
    targets = coded.targets(drawn)
    assert (coded.codes[coded.nearest(targets, drawn[:, 1], rng)] == targets).all()
    assert (coded.codes[coded.different(targets, rng)] != targets).any(axis=1).all()
    assert np.array_equal(coded.indicators(coded.codes), labels == 1)


def test_free_changes_name_other_values_that_occur():
    coded = Pictures(SCHEMA, *pictures(60, 2))
    rows, attributes, new = coded.draw_changes(500, np.random.default_rng(0)).T
    assert (new > 0).all()
    assert (new != coded.codes[rows, attributes]).all()
    for attribute, held in enumerate(coded.sets):
        assert set(new[attributes == attribute].tolist()) == set(range(1, len(held)))


def test_it_has_the_published_parameters():
    adde = Adde(SCHEMA, 24)
    blocks = 3 * (24 * BLOCK + BLOCK + BLOCK * BLOCK + BLOCK) + 9 * BLOCK + 9
    assert sum(p.numel() for p in adde.parameters()) == blocks + 9 * BLOCK * 3


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    return train_adde(SCHEMA, pictures(600, 5), pictures(120, 6), 0, epochs=(8, 3))


def test_changed_vectors_find_whole_targets(trained):
    features, labels = pictures(300, 7)
    whole = (labels[:, :4] == 1).any(axis=1)
    features, labels = features[whole], labels[whole]
    for told in (True, False):
        scorer = AddeScorer(trained, features, labels, told)
        changed, unchanged = [], []
        for row in range(60):
            value = int((np.flatnonzero(labels[row, :4] == 1)[0] + 1) % 4)
            target = labels[row].copy()
            target[:4], target[value] = -1, 1
            right = (labels == target).all(axis=1)
            if right.any():
                for scores, hits in (
                    (scorer.named(row, [value]), changed),
                    (scorer.whole(row), unchanged),
                ):
                    hits.append(right[np.argsort(-scores)[:5]].any())
        assert np.mean(changed) > 0.9 > 0.5 > np.mean(unchanged)


def test_what_is_kept_and_unwanted(trained):
    features, labels = pictures(200, 8)
    scorer = AddeScorer(trained, features, labels)
    kept = np.argsort(-scorer.kept(0, [0]))[1:20]
    assert (labels[kept, 4:6] == labels[0, 4:6]).all(axis=1).mean() > 0.9
    assert np.array_equal(scorer.kept(0, [0, 1, 2]), scorer.whole(0))
    has = int(np.flatnonzero(labels[:, 7] == 1)[0])
    before, after = scorer.named(has, []), scorer.named(has, [], [7])
    share = [float((labels[np.argsort(-s)[:30], 7] == 1).mean()) for s in (before, after)]
    assert share[1] < share[0]
    embed = block_embed(trained, features)
    vectors = embed(SCHEMA.type_condition(1), np.arange(200))
    assert vectors.shape == (200, BLOCK)
    assert np.allclose(vectors @ vectors[0], scorer.kept(0, [0, 2]), atol=1e-5)


def test_it_needs_pictures():
    features, labels = pictures(10, 0)
    with pytest.raises(DataError, match="10 train and 0 valid"):
        train_adde(SCHEMA, (features, labels), (features[:0], labels[:0]))
