"""ASEN++, RPF, AG-MAN and CCA: sizes that their authors' code has, and what their papers claim."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.config import ModelConfig, build_model, variant
from training.models.embedder import ConditionedEmbedder
from training.models.rivals.agman import AGMAN
from training.models.rivals.asenpp import ASENpp
from training.models.rivals.crop import FINE, attended_box, crop
from training.models.rivals.rpf import RPF, e_infonce
from training.recipe import Recipe
from training.schema import Attribute, Schema
from training.step import Batch, Objective, train_step

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
NAMES = ("asenpp", "rpf", "agman", "cca")
GRID, TRIPLETS = 4, 4
OWN = Recipe(sampling="triplets", triplet_weight=0, value_weight=0, contrast_weight=0,
             category_weight=0, attribute_weight=0, nuance_weight=0,
             flip=False, crop=1.0, drop_maps=0.0, precision="float32")  # fmt: skip


def _model(name: str) -> ConditionedEmbedder:
    torch.manual_seed(4)
    config = replace(variant(name, ModelConfig("small", "layer2", GRID)), dim=24)
    return build_model(SCHEMA, config).eval()


def _batch(model: ConditionedEmbedder, progress: float) -> Batch:
    """Stored maps of triplets, the last of which is left out."""
    generator = torch.Generator().manual_seed(1)
    labels = -torch.ones(3 * TRIPLETS, SCHEMA.size)
    labels[:, [0, 3, 5]] = 1
    labels[2::3] *= -1  # negatives
    attribute = torch.tensor([0, 2, 1, -1]).repeat_interleave(3)
    shape = (len(labels), model.last_stage.stop, GRID, GRID)
    maps = torch.randn(shape, generator=generator).relu()
    nothing = torch.full((len(labels),), -1)
    return Batch(maps, labels, nothing, nothing, attribute, progress=progress)


@pytest.mark.parametrize("name", NAMES)
def test_the_embedding_is_of_the_attribute_whatever_is_stored(name: str) -> None:
    model = _model(name)
    maps = model.reduce(_batch(model, 0).inputs)
    keys, types = model.keys(maps), model.type_conditions
    together = model.attend_raw(maps, types[None], keys)
    assert together.shape == (len(maps), 3, model.dim)
    for number, condition in enumerate(types):
        alone = model.attend(maps, condition[None])
        torch.testing.assert_close(alone, F.normalize(together[:, number], dim=-1))
        alpha = model.attention(maps, condition[None], keys)
        torch.testing.assert_close(alpha.sum((1, 2)), torch.ones(len(maps)))
    unit = F.normalize(together, dim=-1)
    assert float((unit[:, 0] * unit[:, 2]).sum(-1).max().detach()) < 0.9995
    each = torch.stack([types[:1], types[2:]]).repeat(len(maps) // 2, 1, 1)
    torch.testing.assert_close(model.attend_raw(maps, each, keys)[1::2, 0], together[1::2, 2])


@pytest.mark.parametrize("name", NAMES)
def test_own_losses_reach_every_layer_and_can_be_lowered(name: str) -> None:
    """CCA has none but the triplets' hinge."""
    model = _model(name).train()
    recipe = replace(OWN, triplet_weight=1.0) if name == "cca" else OWN
    objective, batch = Objective(model, recipe, freeze="all"), _batch(model, 0.9)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator()
    first = train_step(objective, optimizer, batch, generator)
    for key, parameter in model.named_parameters():
        if key.split(".")[0] not in {"attribute_head", "backbone"}:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
    for _ in range(6):
        last = train_step(objective, optimizer, batch, generator)
    assert last["total"] < (0.99 if name == "agman" else 0.95) * first["total"]
    nobody = replace(batch, attribute=torch.full_like(batch.attribute, -1))
    assert math.isfinite(train_step(objective, optimizer, nobody, generator)["total"])


@pytest.mark.parametrize(("name", "local"), [("asenpp", "local"), ("rpf", "patch")])
def test_the_first_stage_leaves_the_crop_alone(name: str, local: str) -> None:
    model = _model(name).train()
    Objective(model, OWN, freeze="all")(_batch(model, 0.1), torch.Generator()).total.backward()
    touched = {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}
    assert local not in touched
    assert "attribute_embedding" in touched


def test_the_box_is_a_square_where_attention_lies() -> None:
    """Against the definition, point by point, on the same interpolated attention."""
    torch.manual_seed(0)
    alpha = torch.rand(40, 5, 5).pow(6)
    alpha[0] = 0.04  # uniform: the whole picture
    alpha[1:] *= torch.rand(39, 5, 5) > 0.7
    fine = F.interpolate(alpha[:, None], scale_factor=FINE, mode="bilinear")[:, 0]
    for own, (left, top, side) in zip(fine, attended_box(alpha).tolist(), strict=True):
        low, high = float(own.min()), float(own.max())
        points = [(y, x) for y in range(20) for x in range(20)
                  if float(own[y, x]) - low >= 0.1 * (high - low)]  # fmt: skip
        ys, xs = ([p[n] / 20 for p in points] for n in (0, 1))
        width, height = max(xs) - min(xs) + 0.05, max(ys) - min(ys) + 0.05
        assert side == pytest.approx(max(width, height), abs=1e-5)
        for start, least, most in ((left, min(xs), max(xs)), (top, min(ys), max(ys))):
            assert -1e-6 <= start <= least + 1e-5
            assert most + 0.05 - 1e-5 <= start + side <= 1 + 1e-5
    assert attended_box(alpha[:1]).tolist() == [[0, 0, 1]]


def test_the_crop_shows_what_is_attended_alone() -> None:
    alpha = torch.zeros(1, 2, 8, 8)
    alpha[0, 0, :4, 4:], alpha[0, 1] = 1 / 16, 1 / 64
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, :4, 4:], maps[0, 1, 4:] = 1, 1  # in the attended corner, and below it
    corner, whole = crop(maps, alpha.flatten(2))
    torch.testing.assert_close(whole, F.avg_pool2d(maps, 2)[0])
    assert corner[0, :-1, 1:].min() == 1
    assert corner[1, :-1].max() == 0


def test_the_background_is_the_complement_of_the_region() -> None:
    model = _model("rpf")
    assert isinstance(model, RPF)
    maps = model.reduce(_batch(model, 0).inputs)
    sharp = torch.zeros(len(maps), 1, GRID * GRID)
    sharp[:, :, 5] = 1
    around = model.background(maps, sharp)
    moved, hidden = maps.clone(), maps.clone()
    moved[:, :, 1, 1] += torch.randn(maps.shape[1])  # the attended cell
    hidden[:, :, 2, 3] += torch.randn(maps.shape[1])
    torch.testing.assert_close(model.background(moved, sharp), around)
    torch.testing.assert_close(model.region(hidden, sharp), model.region(maps, sharp))
    assert (model.background(hidden, sharp) - around).abs().max() > 1e-3
    assert (model.region(moved, sharp) - model.region(maps, sharp)).abs().max() > 1e-3


def test_e_infonce_equals_its_sums() -> None:
    torch.manual_seed(0)
    region, patch, around = torch.randn(3, 6, 5).double()
    value, asked = [0, 0, 1, 2, 2, 3], [0, 0, 0, 1, 1, 1]
    same = torch.tensor([[a == b for b in value] for a in value])
    rivals = torch.tensor([[a == b for b in asked] for a in asked])

    def near(a: Tensor, b: Tensor) -> float:
        return math.exp(float(a @ b / a.norm() / b.norm()) / 0.07)

    total = 0.0
    for i in range(6):
        parts = {True: 0.0, False: 0.0}
        for j in range(6):
            parts[value[i] == value[j]] += near(region[i], patch[j])
        rest = sum(near(region[i], around[j]) for j in range(6) if asked[i] == asked[j])
        total -= math.log(parts[True] / (parts[True] + parts[False] + 12 * rest)) / 6
    assert float(e_infonce((region, patch, around), same, rivals)) == pytest.approx(total)


def test_agman_learns_which_attribute_is_asked_and_starts_with_blocks() -> None:
    model = _model("agman")
    assert isinstance(model, AGMAN)
    assert model.masks.round(decimals=3).tolist()[1] == pytest.approx(
        [0.1] * 8 + [1] * 8 + [0.1] * 8
    )
    model.train()
    batch = _batch(model, 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        train_step(Objective(model, OWN, freeze="all"), optimizer, batch, torch.Generator())
    told = model.told_asked(batch.inputs)[:9].argmax(1)
    assert told.tolist() == batch.attribute[:9].tolist()


def test_sizes_are_those_of_the_authors_code() -> None:
    """ResNet-50 up to layer3, 14 x 14 cells, eight attributes; without what stands for a second
    network."""
    schema = Schema(tuple(Attribute(f"a{i}", ("x", "y")) for i in range(8)))

    def size(name: str, dim: int) -> tuple[int, ConditionedEmbedder]:
        config = replace(variant(name, ModelConfig("resnet50", "layer3", 14)), dim=dim)
        with torch.device("meta"):
            model = build_model(schema, config)
        return model.parameters_of_embedder(), model

    whole, asenpp = size("asenpp", 2048)
    assert isinstance(asenpp, ASENpp)
    stem, local = (_count(part) for part in (asenpp.stem, asenpp.local))
    assert whole - stem - local == 11_959_360
    assert local == 20_984_064 - 11_959_360 - 8_170_304  # its ResNet-34
    whole, rpf = size("rpf", 2048)
    assert whole - _count(rpf.patch) == 11_439_680
    layer4, told = 14_964_736, 1024 * 8  # which the head reads there
    assert size("agman", 512)[0] == 26_420_909 - layer4 - told


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
