"""One step: what goes through the network how often, and its losses against slow ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.descriptor import GARMENT
from training.models.config import ARCHITECTURES, ModelConfig, build_model, model_class, variant
from training.models.embedder import ConditionedEmbedder
from training.recipe import Recipe
from training.sampling import BatchPlan
from training.schema import Attribute, Schema
from training.step import Batch, Objective, draw_looks, lay_out, make_batch, train_step
from training.validated import validated

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
SIZE, IMAGES = 32, 12
PLAIN = Recipe(flip=False, crop=1.0, drop_maps=0.0, precision="float32")
TRIPLETS = replace(PLAIN, sampling="triplets")
WITHOUT_OWN_LOSSES = [
    name for name in ARCHITECTURES if model_class(name).own_losses is ConditionedEmbedder.own_losses
]


def _model(name: str = "m2fashion") -> ConditionedEmbedder:
    torch.manual_seed(0)
    base = ModelConfig("small", "layer2", 3)
    config = validated(ModelConfig, variant(name, base).to_json() | {"dim": 8}, "test")
    model = build_model(SCHEMA, config, categories=2)
    with torch.no_grad():
        for _ in range(20):  # batch norms that have seen something
            model.features(torch.randn(16, 3, SIZE, SIZE))
    return model.eval()


def _batch_of(count: int = IMAGES, attribute: list[int] | None = None) -> Batch:
    generator = torch.Generator().manual_seed(3)
    labels = -torch.ones(count, SCHEMA.size)
    for where in (slice(0, 3), slice(3, 5), slice(5, 7)):
        picked = torch.randint(where.stop - where.start, (count,), generator=generator)
        labels[torch.arange(count), where.start + picked] = 1
    labels[1, 0:3] = 0  # unlabelled in one attribute
    return Batch(
        torch.randn(count, 3, SIZE, SIZE, generator=generator),
        labels,
        torch.randint(2, (count,), generator=generator),
        torch.arange(count) // 2,
        None if attribute is None else torch.tensor(attribute).repeat_interleave(3),
    )


class _Counter:
    """How often modules ran, and with how many images and conditions."""

    def __init__(self, model: ConditionedEmbedder) -> None:
        self.backbone: list[int] = []
        self.reduce: list[int] = []
        self.keys: list[int] = []
        self.conditions: list[tuple[int, int]] = []
        model.backbone.layer1.register_forward_hook(  # the stages are called one by one
            lambda _, inputs, __: self.backbone.append(len(inputs[0]))
        )
        model.reduce.register_forward_hook(lambda _, inputs, __: self.reduce.append(len(inputs[0])))
        for name in ("keys", "see"):
            setattr(model, name, self._counted(name, getattr(model, name)))

    def _counted(self, name: str, method):
        def call(maps: Tensor, *rest):
            if name == "keys":
                self.keys.append(len(maps))
            else:
                self.conditions.append(tuple(rest[0].shape[:2]))
            return method(maps, *rest)

        return call


def test_the_backbone_sees_an_image_once_and_the_head_all_conditions_in_one_go() -> None:
    model = _model()
    counter = _Counter(model)
    recipe = replace(PLAIN, value_conditions=5)
    Objective(model, recipe, freeze="none")(_batch_of(), torch.Generator().manual_seed(0))
    assert counter.backbone == counter.reduce == counter.keys == [IMAGES]
    # Three types and five drawn conditions for all images, and each image's own mask.
    assert counter.conditions == [(1, 3 + 5), (IMAGES, 1)]


def test_stored_maps_do_without_the_backbone() -> None:
    model, batch = _model(), _batch_of()
    with torch.no_grad():
        stored = replace(batch, inputs=model.trunk(batch.inputs))
    losses = [
        Objective(model, PLAIN, freeze)(one, torch.Generator().manual_seed(0)).numbers()
        for freeze, one in (("none", batch), ("all", stored))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    counter = _Counter(model)
    Objective(model, PLAIN, freeze="all")(stored, torch.Generator().manual_seed(0))
    assert counter.backbone == []
    assert counter.reduce == [IMAGES]


def test_sampled_triplets_are_one_pass_as_well() -> None:
    model = _model()
    counter = _Counter(model)
    Objective(model, TRIPLETS, freeze="none")(_batch_of(12, [0, 1, 2, 0]), torch.Generator())
    assert counter.backbone == counter.reduce == [12]
    assert counter.conditions == [(12, 1)]


@pytest.mark.parametrize("name", ["m2fashion", "without-readout", "asen"])
def test_a_batchs_losses_equal_those_of_one_image_and_condition_at_a_time(name: str) -> None:
    model, batch = _model(name), _batch_of()
    recipe = replace(PLAIN, category_weight=0, attribute_weight=0, triplet_weight=0)
    recipe = replace(recipe, value_weight=0.7, contrast_weight=0.4, value_conditions=4)
    got = Objective(model, recipe, freeze="none")(batch, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    # The augmentation's draws come first; they change nothing here.
    for shape in ((IMAGES,), (IMAGES, 2), (IMAGES, 2)):
        torch.rand(shape, generator=generator)
    looks = draw_looks(model, batch.labels, recipe, generator)
    assert looks.shown is None
    z = torch.stack(
        [
            torch.stack([_before_readout(model, x, c) for c in looks.conditions])
            for x in batch.inputs
        ]
    )  # [B, C, d]
    contrast = []
    for c in range(len(looks.conditions)):
        for i in range(IMAGES):
            relations = [_alike(batch.labels, looks.fits, c, i, j) for j in range(IMAGES)]
            alike = [j for j in range(IMAGES) if relations[j] == 1 and j != i]
            unlike = [j for j in range(IMAGES) if relations[j] == -1]
            if alike and unlike:
                scores = z[:, c] @ z[i, c] / recipe.temperature
                total = scores[alike + unlike].logsumexp(0)
                contrast.append(torch.stack([total - scores[j] for j in alike]).mean())
    torch.testing.assert_close(got.contrast, torch.stack(contrast).mean(), rtol=1e-4, atol=1e-5)
    chances = torch.cat([model.predict(model.features(x[None])) for x in batch.inputs])
    values = []
    for number in (0, 1, 2):
        where = SCHEMA.slice_of(number)
        own, states = chances[:, where], batch.labels[:, where]
        if number == 1:
            right = torch.where(states > 0, own, 1 - own)
            values.append(-right.log().mean())
        else:
            labelled = (states > 0).any(1)
            values.append(-own[states > 0].log().sum() / labelled.sum())
    torch.testing.assert_close(got.value, torch.stack(values).mean(), rtol=1e-4, atol=1e-5)
    if name == "asen":
        assert float(got.nuance.detach()) == 0  # it has none
    else:
        expected = _nuance_loss(model, batch, recipe.nuance_temperature)
        torch.testing.assert_close(got.nuance, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        got.total, 0.7 * got.value + 0.4 * got.contrast + recipe.nuance_weight * got.nuance
    )


def _nuance_loss(model: ConditionedEmbedder, batch: Batch, temperature: float) -> Tensor:
    """InfoNCE over the mean cosine of the unit vectors; pictures 2 n and 2 n + 1 show one item."""
    told = [model.describe(model.trunk(x[None])).nuance[0] for x in batch.inputs]
    sizes = [size for owner, size in model.layout.groups if owner != GARMENT]
    told = [t[: sum(sizes)] for t in told]
    vectors = [t.split(sizes) for t in told]
    losses = []
    for i in range(IMAGES):
        scores = torch.stack(
            [
                sum(a @ b for a, b in zip(vectors[i], vectors[j], strict=True)) / len(sizes)
                for j in range(IMAGES)
                if j != i
            ]
        )
        partner = i - 1 if i % 2 else i  # its place where i itself is left out
        losses.append((scores / temperature).logsumexp(0) - scores[partner] / temperature)
    return torch.stack(losses).mean()


def _alike(labels: Tensor, fits: Tensor, c: int, i: int, j: int) -> int:
    """1 alike, -1 unlike, 0 neither, under condition number c."""
    if c >= 3:
        if int(fits[i, c - 3]) != 1:
            return 0
        return {1: 1, 0: -1, -1: 0}[int(fits[j, c - 3])]
    mine, theirs = (
        {k for k in range(*SCHEMA.slice_of(c).indices(SCHEMA.size)) if labels[n, k] == 1}
        for n in (i, j)
    )
    if not mine or not theirs:
        return 0
    return 1 if mine & theirs else -1


def _before_readout(model: ConditionedEmbedder, image: Tensor, condition: Tensor) -> Tensor:
    """Z of one image under one condition, L2-normalised: what the losses compare."""
    z = model.attend_raw(model.features(image[None]), condition.reshape(1, 1, -1))[0, 0]
    return z / z.norm()


def _three_passes(
    model: ConditionedEmbedder, batch: Batch, attributes: list[int], margin: float
) -> Tensor:
    """The hinge loss with a pass of its own for each image of each triplet."""
    hinges = []
    for number, attribute in enumerate(attributes):
        if attribute < 0:
            continue
        condition = torch.from_numpy(SCHEMA.type_condition(attribute)).float()
        three = batch.inputs[3 * number : 3 * number + 3]
        a, p, n = (_before_readout(model, x, condition) for x in three)
        near, far = F.cosine_similarity(a, p, dim=0), F.cosine_similarity(a, n, dim=0)
        hinges.append((margin - near + far).clamp(min=0))
    return torch.stack(hinges).mean()


@pytest.mark.parametrize("attributes", [[0, 2, 1, 1], [0, -1, 1, -1]])
@pytest.mark.parametrize("name", WITHOUT_OWN_LOSSES)
def test_sampled_triplets_equal_three_passes_each(name: str, attributes: list[int]) -> None:
    """Loss and gradients; a triplet with the attribute -1 is as if it were not there."""
    model, batch = _model(name), _batch_of(12, attributes)
    recipe = replace(TRIPLETS, margin=0.5)  # so that most triplets violate it
    got = Objective(model, recipe, freeze="none")(batch, torch.Generator())
    expected = _three_passes(model, batch, attributes, 0.5)
    assert float(expected.detach()) > 0.05
    torch.testing.assert_close(got.triplet, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.total, sum(got.own.values(), got.triplet))
    found = []
    for loss in (got.triplet, expected):
        model.zero_grad()
        loss.backward()
        found.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    for key, gradient in found[1].items():
        torch.testing.assert_close(found[0][key], gradient, rtol=1e-3, atol=1e-5)


def test_a_batch_without_a_whole_triplet_costs_nothing() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    objective = Objective(model, TRIPLETS, freeze="none")
    losses = train_step(objective, optimizer, _batch_of(6, [-1, -1]), torch.Generator())
    assert losses["total"] == 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_triplet_with_an_unreadable_image_is_left_out_as_a_whole() -> None:
    labels = torch.ones(40, 7, dtype=torch.int8)
    category = torch.arange(40)
    plan = BatchPlan(list(range(5, 14)), [0] * 9, np.array([2, 2, 2, 0, 0, 0, 1, 1, 1]))
    known = torch.tensor([1, 1, 1, 1, 0, 1, 1, 1, 1]).bool()
    batch = make_batch(plan, torch.zeros(9, 3, 4, 4), known, labels, category, category, "cpu")
    assert batch.attribute is not None
    assert batch.attribute.tolist() == [2, 2, 2, -1, -1, -1, 1, 1, 1]
    assert plan.attribute is not None
    assert plan.attribute.min() == 0  # the plan itself stays
    assert batch.labels[4].abs().sum() == 0
    assert int(batch.category[4]) == -1
    assert int(batch.shows[4]) == -1
    assert batch.labels[[0, 3, 8]].min() == 1


def test_inputs_are_laid_out_as_planned() -> None:
    inputs = torch.arange(4.0).reshape(4, 1)
    out, known = lay_out([7, 3, 9, 3], [7, 3, 9, 3], inputs)
    assert out is inputs
    assert bool(known.all())
    out, known = lay_out([7, 3, 8, 9, 3], [7, 3, 9, 3], torch.tensor([[7.0], [3], [9], [3]]))
    assert out.flatten().tolist() == [7, 3, 0, 9, 3]
    assert known.tolist() == [True, True, False, True, True]
    out, known = lay_out([1, 2], [], torch.zeros(0, 3, 4, 4))
    assert out.shape == (2, 3, 4, 4)
    assert not bool(known.any())


def test_an_unreadable_image_counts_for_nothing_in_a_batch() -> None:
    """Its place is held by zeros without labels: the losses are those of the others."""
    model, batch = _model(), _batch_of()
    recipe = replace(
        PLAIN, category_weight=0, attribute_weight=0, triplet_weight=0, value_conditions=0
    )
    inputs, labels, category = batch.inputs.clone(), batch.labels.clone(), batch.category.clone()
    inputs[4], labels[4], category[4] = 0, 0, -1
    shows = batch.shows.clone()
    shows[4] = -1
    without = torch.arange(IMAGES) != 4
    losses = [
        Objective(model, recipe, freeze="none")(one, torch.Generator().manual_seed(0)).numbers()
        for one in (
            Batch(inputs, labels, category, shows),
            Batch(inputs[without], labels[without], category[without], shows[without]),
        )
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0]["total"] > 0


def test_a_step_moves_every_part_that_it_should() -> None:
    model = _model().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    objective: nn.Module = Objective(model, PLAIN, freeze="none")
    train_step(objective, optimizer, _batch_of(), torch.Generator().manual_seed(0))
    for key, parameter in model.named_parameters():
        assert not torch.equal(before[key], parameter), key
