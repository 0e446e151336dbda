"""The rivals against their papers' formulas written out loop by loop, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.models.config import (
    ARCHITECTURES,
    VARIANTS,
    ModelConfig,
    build_model,
    model_class,
    variant,
)
from training.models.embedder import ConditionedEmbedder, attribute_weights
from training.models.rivals.asenet_v2 import ASENetV2
from training.schema import Attribute, Schema
from training.validated import validated

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
RIVALS = ("triplet", "csn", "asen", "asenet-v2")
DIM, GRID, CHANNELS, WIDTH = 5, 2, 64, 512


def _model(name: str, lower_stages: bool = False) -> ConditionedEmbedder:
    torch.manual_seed(4)
    base = ModelConfig(backbone="resnet18", stage="layer1", grid=GRID)
    options = {"dim": DIM, "lower_stages": lower_stages}
    config = validated(ModelConfig, variant(name, base).to_json() | options, "test")
    model = build_model(SCHEMA, config, categories=4).double()
    with torch.no_grad():  # statistics and an affine map that a batch norm cannot do without
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0, 0.1)
    return model.eval()


def _conditions() -> Tensor:
    """[4, K]; the attributes they speak of stand in SPOKEN."""
    return torch.from_numpy(
        np.stack(
            [
                SCHEMA.condition(),
                SCHEMA.condition(types=["pattern"]),
                SCHEMA.condition(present=["floral", "v-neckline"]),
                SCHEMA.condition(absent=["red"]),
            ]
        )
    ).double()


SPOKEN = ((0, 1, 2), (0,), (0, 2), (1,))


def _trunk() -> Tensor:
    return torch.randn(2, CHANNELS, GRID, GRID, dtype=torch.float64).relu()


def _dense(weight: np.ndarray, vector: list[float], bias: np.ndarray | None = None) -> list[float]:
    out = []
    for o in range(len(weight)):
        total = 0.0 if bias is None else float(bias[o])
        for i in range(len(vector)):
            total += float(weight[o, i]) * vector[i]
        out.append(total)
    return out


def _relu(vector: list[float]) -> list[float]:
    return [max(0.0, v) for v in vector]


def _sigmoid(vector: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-v)) for v in vector]


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def _reference(
    model: ConditionedEmbedder, trunk: np.ndarray, spoken: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Z of one image under a condition that speaks of some attributes, and alpha cell by cell."""
    w = {k: v.numpy() for k, v in model.state_dict().items()}
    name = model.architecture
    cells = [trunk[:, y, x].tolist() for y in range(GRID) for x in range(GRID)]
    one_hot = [1 / len(spoken) if t in spoken else 0.0 for t in range(3)]
    uniform = [1 / len(cells)] * len(cells)
    if name in ("triplet", "csn"):
        pooled = [sum(cell[i] for cell in cells) / len(cells) for i in range(CHANNELS)]
        z = _dense(w["output.weight"], pooled, w["output.bias"])
        if name == "csn":
            for i in range(DIM):
                z[i] *= sum(max(0.0, w["masks"][t, i]) for t in spoken) / len(spoken)
        return _unit(z), uniform

    if name == "asenet-v2":
        one_hot = [
            sum(one_hot[t] * w["attribute_embedding"][t, i] for t in range(3)) for i in range(WIDTH)
        ]
    t1 = _dense(w["spatial_attribute.weight"], one_hot, w.get("spatial_attribute.bias"))
    t1 = [math.tanh(v) for v in t1]
    logits = []
    for cell in cells:
        p = _dense(w["key.weight"][:, :, 0, 0], cell, w["key.bias"])
        if name == "asenet-v2":
            for i in range(WIDTH):
                p[i] -= w["key_norm.running_mean"][i]
                p[i] /= math.sqrt(w["key_norm.running_var"][i] + 1e-5)
                p[i] = p[i] * w["key_norm.weight"][i] + w["key_norm.bias"][i]
        product = [math.tanh(p[i]) * t1[i] for i in range(WIDTH)]
        if name == "asen":
            logits.append(math.tanh(_dense(w["logit.weight"], product, w["logit.bias"])[0]))
        else:
            logits.append(sum(product) / math.sqrt(512))
    alpha = [math.exp(s) / sum(math.exp(o) for o in logits) for s in logits]
    attended = [
        sum(a * cell[i] for a, cell in zip(alpha, cells, strict=True)) for i in range(CHANNELS)
    ]
    beside = _dense(w["channel_attribute.weight"], one_hot, w.get("channel_attribute.bias"))
    hidden = _relu(_dense(w["squeeze.weight"], attended + _relu(beside), w["squeeze.bias"]))
    gate = _sigmoid(_dense(w["excite.weight"], hidden, w["excite.bias"]))
    z = [gate[i] * attended[i] for i in range(CHANNELS)]
    if name == "asen":
        z = _dense(w["output.weight"], z, w["output.bias"])
    return _unit(z), alpha


@pytest.mark.parametrize("name", RIVALS)
def test_attend_and_attention_equal_the_formulas(name: str) -> None:
    model, trunk = _model(name), _trunk()
    maps = model.reduce(trunk)
    for condition, spoken in zip(_conditions(), SPOKEN, strict=True):
        z = model.attend(maps, condition.unsqueeze(0))
        alpha = model.attention(maps, condition.unsqueeze(0))
        assert alpha.shape == (2, GRID, GRID)
        for image in range(2):
            expected, weights = _reference(model, trunk[image].numpy(), spoken)
            np.testing.assert_allclose(z[image].detach(), expected, atol=1e-12)
            np.testing.assert_allclose(alpha[image].detach().flatten(), weights, atol=1e-12)


def test_asen_has_the_published_number_of_parameters() -> None:
    """11,704,897 with a ResNet-50 up to layer3, 8 attributes and embeddings of 1024."""
    schema = Schema(tuple(Attribute(f"a{i}", ("x", "y", "z")) for i in range(8)))
    config = variant("asen", ModelConfig("resnet50", "layer3", 14))
    model = build_model(schema, config, categories=20)
    assert model.dim == 1024
    assert model.parameters_of_embedder() == 11_704_897
    heads = (1024 + 1) * (20 + schema.size)
    assert sum(p.numel() for p in model.parameters()) == 11_704_897 + heads


@pytest.mark.parametrize("lower_stages", [False, True])
@pytest.mark.parametrize("name", ["m2fashion", *RIVALS])
def test_stored_maps_and_keys_give_what_images_give(name: str, lower_stages: bool) -> None:
    model = _model(name, lower_stages)
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    maps = model.features(images)
    keys = model.keys(maps)
    for condition in _conditions():
        one = condition.unsqueeze(0)
        torch.testing.assert_close(model.attend(maps, one, keys), model(images, one))
        torch.testing.assert_close(model.attend(maps, one), model(images, one))
        torch.testing.assert_close(
            model.attention(maps, one, keys).sum((1, 2)), torch.ones(2, dtype=torch.float64)
        )
    assert model(images, condition.unsqueeze(0)).shape == (2, model.width)
    torch.testing.assert_close(model.predict(maps, keys), model.predict(maps))


@pytest.mark.parametrize("name", ["m2fashion", *RIVALS])
def test_many_conditions_at_once_equal_one_at_a_time(name: str) -> None:
    model = _model(name)
    maps, conditions = model.reduce(_trunk()), _conditions()
    together = model.attend_raw(maps, conditions.unsqueeze(0))
    assert together.shape == (2, 4, model.dim)
    for number in range(4):
        alone = model.attend_raw(maps, conditions[number].reshape(1, 1, -1))[:, 0]
        torch.testing.assert_close(together[:, number], alone)
    each = torch.stack([conditions, conditions.flip(0)])  # other conditions for the other image
    apart = model.attend_raw(maps, each)
    torch.testing.assert_close(apart[0], together[0])
    torch.testing.assert_close(apart[1], together[1].flip(0))


@pytest.mark.parametrize("name", RIVALS)
def test_what_a_rival_sees_of_a_condition(name: str) -> None:
    """Attributes (the triplet network not even those), never which value is named."""
    model = _model(name)
    maps = model.reduce(_trunk())

    def z(**named: list[str]) -> Tensor:
        return model.attend(maps, torch.from_numpy(SCHEMA.condition(**named)).double()[None])

    assert not model.sees_values
    torch.testing.assert_close(z(present=["floral"]), z(types=["pattern"]))
    torch.testing.assert_close(z(present=["striped"]), z(absent=["solid"]))
    moved = (z(types=["pattern"]) - z(types=["collar"])).abs().max()
    assert (moved == 0) if name == "triplet" else (moved > 1e-5)


@pytest.mark.parametrize("name", RIVALS)
def test_gradients_reach_every_parameter_of_the_head(name: str) -> None:
    model = _model(name).train()
    trunk = _trunk()
    model.attend(model.reduce(trunk), _conditions()[1:3]).square().mul(
        torch.arange(1, model.dim + 1)
    ).sum().backward()
    for key, parameter in model.named_parameters():
        if key.split(".")[0] not in {"attribute_head", "category_head", "backbone"}:
            if name == "asenet-v2" and key == "key.bias":
                continue  # the batch norm after it takes it away again
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key


def test_attribute_weights_by_hand() -> None:
    got = attribute_weights(_conditions(), SCHEMA)
    third = 1 / 3
    expected = [[third, third, third], [1, 0, 0], [0.5, 0, 0.5], [0, 1, 0]]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
    nested = attribute_weights(_conditions().reshape(2, 2, -1), SCHEMA)
    torch.testing.assert_close(nested.reshape(4, 3), got)


@pytest.mark.parametrize("lower_stages", [False, True])
def test_asenet_v2_has_no_output_layer_whatever_dim_says(lower_stages: bool) -> None:
    model = _model("asenet-v2", lower_stages)
    channels = CHANNELS + (6 if lower_stages else 0)  # below layer1 there are the pixels alone
    assert isinstance(model, ASENetV2)
    assert model.dim == model.config.dim == channels
    assert model(torch.randn(1, 3, 24, 24).double(), _conditions()[:1]).shape == (1, channels)


def test_the_registry_agrees_with_the_variants_and_the_classes() -> None:
    for name in ARCHITECTURES:
        assert model_class(name).architecture == name
        assert variant(name, ModelConfig()).architecture == name
    assert set(RIVALS) | {"m2fashion"} <= set(ARCHITECTURES)
    # A variant of M2Fashion is one, also of a base that is not.
    rival = ModelConfig(architecture="asen")
    for name in set(VARIANTS) - set(RIVALS):
        assert variant(name, rival).architecture == "m2fashion"
