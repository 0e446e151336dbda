"""Losses against plain loops, written from their equations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.losses import (
    Pairs,
    category_loss,
    contrastive_loss,
    hinge_loss,
    literal_pairs,
    masked_attribute_loss,
    triplet_loss,
    type_pairs,
    value_loss,
    value_pairs,
)
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("a", ("x", "y", "z")), Attribute("b", ("p", "q"), multi=True)))

# Image 3 is unlabelled in a; image 4 has both values of b; image 5 is labelled in nothing.
LABELS = torch.tensor(
    [
        [1, -1, -1, 1, -1],
        [1, -1, -1, -1, 1],
        [-1, 1, -1, -1, 1],
        [0, 0, 0, 1, -1],
        [-1, -1, 1, 1, 1],
        [0, 0, 0, 0, 0],
    ]
).float()


def test_type_pairs_by_hand() -> None:
    pairs = type_pairs(LABELS, SCHEMA)
    for attribute in range(2):
        where = SCHEMA.slice_of(attribute)
        for i in range(6):
            for j in range(6):
                mine = {k for k in range(where.start, where.stop) if LABELS[i, k] == 1}
                theirs = {k for k in range(where.start, where.stop) if LABELS[j, k] == 1}
                shared = bool(mine & theirs)
                assert bool(pairs.positive[attribute, i, j]) == (shared and i != j)
                expected = bool(mine) and bool(theirs) and not shared
                assert bool(pairs.negative[attribute, i, j]) == expected


def test_value_pairs_anchor_only_at_images_that_fit() -> None:
    fits = torch.tensor([[1], [1], [0], [-1]], dtype=torch.int8)
    pairs = value_pairs(fits)
    assert torch.nonzero(pairs.positive).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert torch.nonzero(pairs.negative).tolist() == [[0, 0, 2], [0, 1, 2]]


def test_literal_pairs_share_any_value_or_none() -> None:
    pairs = literal_pairs(LABELS, 2)
    assert pairs.positive.shape == (2, 6, 6)
    assert bool(pairs.positive[0, 0, 1])  # x
    assert bool(pairs.negative[0, 0, 2])
    assert bool(pairs.positive[1, 0, 3])  # p
    assert not bool(pairs.negative[0, 5].any())  # nothing is known of image 5


def _random_case(seed: int) -> tuple[Tensor, Pairs]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(2, 6, 4, generator=generator), dim=-1)
    return (z @ z.transpose(1, 2)).double(), type_pairs(LABELS, SCHEMA)


@pytest.mark.parametrize("seed", range(3))
def test_contrastive_loss_by_loops(seed: int) -> None:
    similarities, pairs = _random_case(seed)
    terms = []
    for c in range(2):
        for i in range(6):
            positives = [j for j in range(6) if pairs.positive[c, i, j]]
            negatives = [j for j in range(6) if pairs.negative[c, i, j]]
            if not positives or not negatives:
                continue
            total = sum(math.exp(similarities[c, i, j] / 0.1) for j in positives + negatives)
            terms.append(
                -sum(math.log(math.exp(similarities[c, i, j] / 0.1) / total) for j in positives)
                / len(positives)
            )
    got = contrastive_loss(similarities, pairs, 0.1)
    assert float(got) == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_triplet_loss_over_all_triplets_by_loops() -> None:
    """With one positive an anchor the draw is certain, so every triplet is known."""
    similarities, pairs = _random_case(0)
    single = torch.zeros_like(pairs.positive)
    for c in range(2):
        for i in range(6):
            first = torch.nonzero(pairs.positive[c, i]).flatten()[:1]
            single[c, i, first] = True
    terms = []
    for c in range(2):
        for a in range(6):
            for p in range(6):
                for n in range(6):
                    if single[c, a, p] and pairs.negative[c, a, n]:
                        hinge = 0.2 - similarities[c, a, p] + similarities[c, a, n]
                        if hinge > 0:
                            terms.append(float(hinge))
    got = triplet_loss(
        similarities, Pairs(single, pairs.negative), 0.2, 3, torch.Generator().manual_seed(0)
    )
    assert float(got) == pytest.approx(sum(terms) / len(terms), rel=1e-9)


def test_triplet_loss_pulls_positives_and_pushes_negatives() -> None:
    """The sign of Eq. 14 as printed would do the opposite."""
    similarities = torch.tensor([[[1.0, 0.3, 0.4], [0.3, 1, 0], [0.4, 0, 1]]], requires_grad=True)
    positive = torch.zeros(1, 3, 3, dtype=torch.bool)
    negative = positive.clone()
    positive[0, 0, 1] = negative[0, 0, 2] = True
    loss = triplet_loss(similarities, Pairs(positive, negative), 0.2, 1, torch.Generator())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3)
    assert similarities.grad is not None
    assert similarities.grad[0, 0, 1] < 0 < similarities.grad[0, 0, 2]


@pytest.mark.parametrize("make", [triplet_loss, contrastive_loss])
def test_a_batch_without_pairs_costs_nothing_and_has_a_gradient(make: object) -> None:
    similarities = torch.zeros(2, 3, 3, requires_grad=True)
    none = Pairs(torch.zeros(2, 3, 3, dtype=torch.bool), torch.ones(2, 3, 3, dtype=torch.bool))
    if make is triplet_loss:
        loss = triplet_loss(similarities, none, 0.2, 2, torch.Generator())
    else:
        loss = contrastive_loss(similarities, none, 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert similarities.grad is not None
    assert bool(torch.isfinite(similarities.grad).all())


def test_masked_attribute_loss_scores_hidden_labels_only() -> None:
    logits = torch.linspace(-2, 2, 30).reshape(6, 5)
    shown = LABELS.clone()
    shown[0, 0] = shown[2, 4] = shown[4, 1] = 0
    terms = []
    for i, k in ((0, 0), (2, 4), (4, 1)):
        chance = 1 / (1 + math.exp(-float(logits[i, k])))
        terms.append(-math.log(chance if LABELS[i, k] > 0 else 1 - chance))
    got = masked_attribute_loss(logits, LABELS, shown)
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-5)
    assert float(masked_attribute_loss(logits, LABELS, LABELS)) == 0


def test_category_loss_leaves_unknown_out() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    assert float(category_loss(logits, torch.tensor([0, -1, 1]))) == pytest.approx(expected)
    assert float(category_loss(logits, torch.tensor([-1, -1, -1]))) == 0


def test_value_loss_softmax_for_single_sigmoid_for_multi() -> None:
    logits = torch.linspace(-1, 1, 30).reshape(6, 5)
    single, multi = [], []
    for i in range(6):
        if (LABELS[i, :3] == 1).any():
            own = [math.exp(float(v)) for v in logits[i, :3]]
            single.append(-math.log(own[int(LABELS[i, :3].argmax())] / sum(own)))
        for k in (3, 4):
            if LABELS[i, k]:
                chance = 1 / (1 + math.exp(-float(logits[i, k])))
                multi.append(-math.log(chance if LABELS[i, k] > 0 else 1 - chance))
    expected = (np.mean(single) + np.mean(multi)) / 2
    assert float(value_loss(logits, LABELS, SCHEMA)) == pytest.approx(expected, rel=1e-5)


def test_hinge_loss_by_hand() -> None:
    anchor, positive, negative = torch.randn(3, 7, 5, dtype=torch.float64)
    total, active = 0.0, 0
    for a, p, n in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True):

        def cosine(x: list[float], y: list[float]) -> float:
            dot = sum(i * j for i, j in zip(x, y, strict=True))
            return dot / math.sqrt(sum(i * i for i in x)) / math.sqrt(sum(j * j for j in y))

        violation = 0.2 - cosine(a, p) + cosine(a, n)
        total += max(0.0, violation)
        active += violation > 0
    assert 0 < active < 7  # satisfied triplets count in the mean
    got = hinge_loss(anchor, positive, negative, 0.2)
    assert got.item() == pytest.approx(total / 7, abs=1e-12)
    longer = hinge_loss(3 * anchor, positive, 5 * negative, 0.2)
    assert longer.item() == pytest.approx(got.item(), abs=1e-12)
    nothing = torch.zeros(0, 5, requires_grad=True)
    hinge_loss(nothing, nothing, nothing, 0.2).backward()
