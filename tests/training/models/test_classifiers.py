"""The classifiers of Table 1: what each paper claims of its parts, and what all have in common."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.images.landmarks import CUT_OFF, NONE, VISIBLE
from training.models.config import ModelConfig, build_model, variant
from training.models.embedder import ConditionedEmbedder, Given
from training.models.rivals.attentive import Grammar
from training.models.rivals.classifier import heatmap_targets
from training.models.rivals.corbiere import draw_words
from training.models.rivals.fashionnet import FIRST, landmark_features
from training.models.rivals.upsampling import heatmap_branch
from training.schema import Attribute, Schema
from training.validated import validated

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue", "green"), multi=True),
    )
)
NAMES = ("wtbi", "darn", "fashionnet", "corbiere", "attentive", "upsampling")
IMAGES, SIDE = 6, 64


def _model(name: str) -> ConditionedEmbedder:
    torch.manual_seed(1)
    base = ModelConfig("small", "layer2", 5)
    config = validated(ModelConfig, variant(name, base).to_json() | {"dim": 24}, "test")
    model = build_model(SCHEMA, config, categories=3)
    with torch.no_grad():
        for _ in range(10):  # batch norms that have seen something
            model.standardise(model.trunk(torch.randn(8, 3, SIDE, SIDE)))
    return model.eval()


def _given(progress: float = 0.9) -> Given:
    labels = torch.tensor(
        [[1, -1, -1, 1, 1, -1], [-1, 1, -1, -1, 1, -1], [0, 0, 0, -1, -1, 1]] * 2
    ).float()
    landmarks = torch.rand(IMAGES, 8, 3, generator=torch.Generator().manual_seed(2))
    landmarks[..., 2] = VISIBLE
    landmarks[:, 4:6] = torch.tensor([0, 0, NONE])
    landmarks[0, 0, 2] = CUT_OFF
    category, shows = torch.tensor([0, 1, 2, 0, -1, 2]), torch.tensor([0, 0, 1, 1, 2, 3])
    generator = torch.Generator().manual_seed(3)
    return Given(labels, category, shows, None, landmarks, progress, generator)


@pytest.mark.parametrize("name", NAMES)
def test_own_losses_reach_every_layer(name: str) -> None:
    model = _model(name).train()
    trunk = model.standardise(model.trunk(torch.randn(IMAGES, 3, SIDE, SIDE))).detach()
    terms = model.own_losses(trunk, _given())
    assert all(float(term.detach()) > 0 for term in terms.values()), terms
    sum(terms.values()).backward()
    for key, parameter in model.named_parameters():
        if not key.startswith("backbone."):
            assert parameter.grad is not None, key
            assert float(parameter.grad.abs().sum()) > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_compare_the_chances_that_the_heads_give(name: str) -> None:
    model = _model(name)
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        maps = model.features(images)
        chances = model.predict(maps).double().numpy()
        assert model.category_logits(maps).shape == (2, 3)
        for types in (["pattern"], ["colour"], ["pattern", "colour"]):
            condition = torch.from_numpy(SCHEMA.condition(types=types)).float()[None]
            z = model.attend(maps, condition)
            assert z.shape == (2, model.width)
            torch.testing.assert_close(z.norm(dim=-1), torch.ones(2))
            if name == "darn":  # its branches are compared
                continue
            one, other = chances
            likeness = {
                "pattern": sum(math.sqrt(one[k] * other[k]) for k in range(3)),
                "colour": np.mean(
                    [
                        math.sqrt(one[k] * other[k]) + math.sqrt((1 - one[k]) * (1 - other[k]))
                        for k in range(3, 6)
                    ]
                ),
            }
            expected = np.mean([likeness[t] for t in types])
            assert float(z[0] @ z[1]) == pytest.approx(expected, abs=1e-5)


def test_darn_has_a_branch_for_each_attribute_and_for_the_category() -> None:
    """What one branch learns moves the chances of its own attribute alone."""
    model = _model("darn")
    assert [tuple(b.weight.shape) for b in model.branches] == [(512, 1024)] * 3
    maps = model.features(torch.randn(2, 3, SIDE, SIDE))
    moved = []
    for branch in model.branches:
        before = model.predict(maps), model.category_logits(maps)
        branch.weight.data.mul_(-2)
        after = model.predict(maps), model.category_logits(maps)
        changed = [(a - b).abs().amax(0) > 1e-6 for a, b in zip(after, before, strict=True)]
        moved.append([bool(c.any()) for c in (changed[0][:3], changed[0][3:], changed[1])])
    assert moved == [[True, False, False], [False, True, False], [False, False, True]]


def test_the_branch_of_landmarks_has_the_published_number_of_parameters() -> None:
    branch = heatmap_branch(512)
    assert sum(p.numel() for p in branch.parameters()) == 447_496
    assert branch(torch.randn(1, 512, 3, 2)).shape == (1, 8, 24, 16)


def test_heatmaps_are_highest_at_the_landmark_and_fall_with_the_distance() -> None:
    landmarks = torch.tensor([[[0.32, 0.71, VISIBLE], [0.92, 0.13, VISIBLE]]])
    target = heatmap_targets(landmarks, 20, 2.0)
    for slot in range(2):
        x, y = landmarks[0, slot, :2].tolist()
        assert int(target[0, slot].argmax()) == int(y * 20) * 20 + int(x * 20)
        for row in range(0, 20, 7):
            for column in range(0, 20, 7):
                distance = math.hypot(column + 0.5 - 20 * x, row + 0.5 - 20 * y)
                expected = math.exp(-0.5 * distance / 2.0)
                assert float(target[0, slot, row, column]) == pytest.approx(expected, abs=1e-5)


def test_upsampling_wants_heatmaps_that_peak_at_the_landmarks_a_garment_has() -> None:
    model, given = _model("upsampling"), _given()
    trunk = torch.randn(IMAGES, model.last_stage.stop, 5, 5)
    wanted = heatmap_targets(given.landmarks, 40, 40 / 28)
    given.landmarks[0, 1, 2], wrong = CUT_OFF, torch.zeros(IMAGES, 8, 40, 40)
    wrong[:, 4:6], wrong[0, :2] = 5, 3  # slots that are missing or cut off
    model.reduce.heatmaps.forward = lambda trunk: wanted + wrong
    assert model.own_losses(trunk, given)["landmarks"].item() == 0
    wrong[1, 2, 7, 9] = 4
    loss = model.own_losses(trunk, given)["landmarks"].item()
    assert loss == pytest.approx(10 * 16 / wrong.numel(), rel=1e-4)


def _bilinear(maps: np.ndarray, x: float, y: float) -> np.ndarray:
    """F [channels, H, W] at x, y in 0..1; beyond the middle of the outermost cells it goes on."""
    height, width = maps.shape[1:]
    x, y = (min(max(v * n - 0.5, 0), n - 1) for v, n in ((x, width), (y, height)))
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - left, y - top
    square = maps[:, top : top + 2, left : left + 2]
    return square.transpose(0, 2, 1) @ np.array([1 - b, b]) @ np.array([1 - a, a])


def test_fashionnet_pools_around_the_landmarks() -> None:
    maps = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.tensor([[[0.2, 0.6], [0.99, 0.03], [0.5, 0.5]]], dtype=torch.float64)
    got = landmark_features(maps, places)[0].numpy()
    for slot, (x, y) in enumerate(places[0].tolist()):
        steps = (-0.5 / 7, 0.5 / 7)
        around = [_bilinear(maps[0].numpy(), x + i, y + j) for i in steps for j in steps]
        np.testing.assert_allclose(got[slot], np.max(around, axis=0), atol=1e-12)


def test_fashionnet_learns_landmarks_first_and_balances_values_by_their_counts() -> None:
    model = _model("fashionnet")
    trunk = torch.randn(IMAGES, model.last_stage.stop, 5, 5)
    with torch.no_grad():
        before = model.own_losses(trunk, _given(FIRST - 0.01))
        model.counts.fill_(1)
        after = model.own_losses(trunk, _given(FIRST))
    ratios = {name: float(before[name] / after[name]) for name in after}
    expected = {"landmarks": 10, "visibility": 1, "values": 0.1, "categories": 0.1}
    assert ratios == pytest.approx(expected, rel=1e-4)
    assert model.counts[:, 3:].tolist() == [[3, 5, 3], [5, 3, 5]]  # and the one that it began with


def test_attentive_walks_its_chains_to_and_fro() -> None:
    grammar = Grammar(((0, 4, 6), (0, 1)))
    maps = torch.randn(2, 8, 16, 3, 3)
    states: list[list[Tensor]] = [[] for _ in range(8)]
    grammar(maps, states)
    assert [len(own) for own in states] == [2, 1, 0, 0, 1, 0, 1, 0]
    there: list[Tensor] = []
    for slot in (0, 4, 6):
        x = grammar.input(maps[:, slot])
        there.append(torch.tanh(x + grammar.state(there[-1]) if there else x))
    back = torch.tanh(grammar.input(maps[:, 6]))
    back = torch.tanh(grammar.input(maps[:, 4]) + grammar.state(back))
    torch.testing.assert_close(states[4][0], there[1] + back)


def test_corbieres_words_are_the_pictures_and_its_negatives_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.tensor([[1, 1, -1, -1, -1, 0], [0, 0, 0, 0, -1, -1], [-1, -1, -1, -1, 1, 0]])
    drawn = [draw_words(states.float(), 2, generator) for _ in range(300)]
    words = torch.stack([word for word, _, _ in drawn])
    assert (words[:, 1] == -1).all()
    assert (words[:, 2] == 4).all()
    assert 100 < int((words[:, 0] == 0).sum()) < 200
    assert set(words[:, 0].tolist()) == {0, 1}
    for _, negatives, counted in drawn:
        assert counted.all()
        assert (states.gather(1, negatives) == -1).all()
        assert (negatives[:, 0] != negatives[:, 1]).all()
    _, negatives, counted = draw_words(states.float(), 5, generator)
    assert counted.sum(1).tolist() == [3, 2, 4]
    assert (states.gather(1, negatives)[counted] == -1).all()


def test_wtbi_scores_a_pair_by_three_layers_whichever_comes_first() -> None:
    model = _model("wtbi")
    f = torch.randn(3, model.dim)
    got = model.pair_logits(f, f[:2])
    first = torch.cat([model.query.weight, model.gallery.weight], 1)
    for q in range(3):
        for g in range(2):
            scores = []
            for pair in (torch.cat([f[q], f[g]]), torch.cat([f[g], f[q]])):
                hidden = (first @ pair + model.query.bias).relu()
                scores.append(model.score(model.hidden(hidden).relu()))
            torch.testing.assert_close(got[q, g], sum(scores)[0] / 2)
