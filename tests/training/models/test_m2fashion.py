"""The model against Eqs. 1-9 and the readout written out loop by loop, in float64."""

import math

import numpy as np
import pytest
import torch
from slow_readout import slow_readout, unit
from torch import Tensor
from torch.nn import functional as F

from training.errors import UsageError
from training.models.config import VARIANTS, ModelConfig, variant
from training.models.m2fashion import M2Fashion
from training.models.nuance import GarmentNuance
from training.schema import Attribute, Schema
from training.validated import validated

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
DIM = 6
OURS = [n for n, options in VARIANTS.items() if "architecture" not in options]


def _model(name: str) -> M2Fashion:
    torch.manual_seed(3)
    config = variant(name, ModelConfig(backbone="resnet18", stage="layer1", grid=3, dim=DIM))
    model = M2Fashion(SCHEMA, config, categories=4).double().eval()
    if config.readout == "values":
        with torch.no_grad():
            model.values.bias.normal_()
            model.values.log_scale.fill_(1.0)  # so that more than one value is likely
    return model


def _conditions() -> Tensor:
    return torch.from_numpy(
        np.stack(
            [
                SCHEMA.condition(),
                SCHEMA.condition(types=["pattern"]),
                SCHEMA.condition(present=["floral", "v-neckline"], absent=["blue"]),
                SCHEMA.condition(absent=["red"]),
            ]
        )
    ).double()


def _embedding_reference(
    table: dict[str, np.ndarray], mode: str, states: np.ndarray
) -> list[float]:
    """Eq. 1 / 6 for one condition."""
    out = []
    for c in range(DIM):
        if mode == "paper":
            total = sum(table["positive"][k, c] * states[k] for k in range(len(states)))
        else:
            wanted = [k for k in range(len(states)) if states[k] > 0]
            unwanted = [k for k in range(len(states)) if states[k] < 0]
            total = table["bias"][c]
            if wanted:
                total += sum(table["positive"][k, c] for k in wanted) / len(wanted)
            if unwanted:
                total += sum(table["negative"][k, c] for k in unwanted) / len(unwanted)
        out.append(math.tanh(total))
    return out


def _reference(model: M2Fashion, image_map: np.ndarray, states: np.ndarray) -> list[float]:
    """The embedding of one image under one condition, with plain loops and Python floats."""
    z = unit(_equations(model, image_map, states))
    if model.config.readout == "none":
        return z
    return slow_readout(model.values.state_dict(), SCHEMA, z, states.tolist())


def _equations(model: M2Fashion, image_map: np.ndarray, states: np.ndarray) -> list[float]:
    """Z of one image under one condition before normalisation, Eqs. 1-9."""
    config, weights = model.config, {k: v.numpy() for k, v in model.state_dict().items()}

    def table(name: str) -> dict[str, np.ndarray]:
        return {k.split(".")[1]: v for k, v in weights.items() if k.startswith(name + ".")}

    t1 = _embedding_reference(table("spatial_embedding"), config.embedding, states)
    t2 = _embedding_reference(table("channel_embedding"), config.embedding, states)
    cells = [image_map[:, h, w].tolist() for h in range(3) for w in range(3)]
    count = len(cells)

    if config.spatial == "none":
        alpha = [1 / count] * count
    else:
        kernel, bias = weights["spatial.key.weight"][:, :, 0, 0], weights["spatial.key.bias"]
        query = weights["spatial.query"]
        logits = []
        for cell in cells:
            total = 0.0
            for o in range(DIM):
                p = math.tanh(sum(kernel[o, i] * cell[i] for i in range(DIM)) + bias[o])  # Eq. 2
                total += query[o] * (p * t1[o])  # Eq. 3
            if config.spatial == "tanh":
                total = math.tanh(total)
            else:
                total *= math.exp(weights["spatial.log_temperature"])
            logits.append(total)
        denominator = sum(math.exp(s) for s in logits)
        alpha = [math.exp(s) / denominator for s in logits]  # Eq. 4

    attended = []
    for i in range(DIM):
        weighted = [alpha[n] * cells[n][i] * count for n in range(count)]
        if config.spatial == "none" and config.pooling == "max":
            weighted = [cells[n][i] for n in range(count)]
        attended.append(
            max(weighted) if config.pooling == "max" else sum(weighted) / count
        )  # Eq. 5
    if config.channel == "none":
        return attended

    both = t2 + attended
    w1, b1 = weights["channel.squeeze.weight"], weights["channel.squeeze.bias"]
    w2, b2 = weights["channel.excite.weight"], weights["channel.excite.bias"]
    w, b = weights["channel.output.weight"], weights["channel.output.bias"]
    hidden = [sum(w1[o, i] * both[i] for i in range(2 * DIM)) + b1[o] for o in range(DIM)]
    if config.channel == "sigmoid":
        hidden = [1 / (1 + math.exp(-h)) for h in hidden]
    else:
        hidden = [max(0.0, h) for h in hidden]
    gate = [
        1 / (1 + math.exp(-(sum(w2[o, i] * hidden[i] for i in range(DIM)) + b2[o])))
        for o in range(DIM)
    ]  # Eq. 7
    gated = [gate[i] * attended[i] for i in range(DIM)]  # Eq. 8
    return [sum(w[o, i] * gated[i] for i in range(DIM)) + b[o] for o in range(DIM)]  # Eq. 9


@pytest.mark.parametrize("name", OURS)
def test_attend_equals_the_equations(name: str) -> None:
    model = _model(name)
    if name != "paper":
        assert model.state_dict()["channel_embedding.bias"].abs().sum() > 0
    maps = torch.randn(2, DIM, 3, 3, dtype=torch.float64)
    for condition in _conditions():
        if name == "paper" and not condition.any():
            continue  # all unknown: see the next test
        got = model.attend(maps, condition.unsqueeze(0))
        for image in range(2):
            expected = _reference(model, maps[image].numpy(), condition.numpy())
            np.testing.assert_allclose(got[image].detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OURS)
def test_attend_of_features_is_forward(name: str) -> None:
    model = _model(name)
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    for condition in _conditions()[1:]:
        one = condition.unsqueeze(0)
        maps = model.features(images)
        torch.testing.assert_close(model.attend(maps, one), model(images, one))
        torch.testing.assert_close(model.attend(maps, one, model.keys(maps)), model(images, one))


def test_conditions_of_each_image_equal_one_condition_at_a_time() -> None:
    model = _model("m2fashion")
    maps = torch.randn(4, DIM, 3, 3, dtype=torch.float64)
    conditions = _conditions()
    each = model.attend(maps, conditions)
    for i in range(4):
        alone = model.attend(maps[i : i + 1], conditions[i : i + 1])
        torch.testing.assert_close(each[i : i + 1], alone)


@pytest.mark.parametrize("name", ["m2fashion", "gmp", "paper", "without-aca"])
def test_another_condition_gives_another_embedding_and_attention(name: str) -> None:
    model = _model(name)
    maps = torch.randn(1, DIM, 3, 3, dtype=torch.float64)
    first, second = _conditions()[1:3].unsqueeze(1)
    assert (model.attend(maps, first) - model.attend(maps, second)).abs().max() > 1e-3
    alphas = [model.attention(maps, c) for c in (first, second)]
    assert (alphas[0] - alphas[1]).abs().max() > 1e-4
    for alpha in alphas:
        assert alpha.shape == (1, 3, 3)
        torch.testing.assert_close(alpha.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_without_asa_attention_is_uniform_but_the_embedding_still_conditioned() -> None:
    model = _model("without-asa")
    maps = torch.randn(1, DIM, 3, 3, dtype=torch.float64)
    first, second = _conditions()[1:3].unsqueeze(1)
    assert torch.all(model.attention(maps, first) == 1 / 9)
    assert (model.attend(maps, first) - model.attend(maps, second)).abs().max() > 1e-3


def test_all_unknown_condition_is_alive_unlike_the_papers() -> None:
    nothing = torch.zeros(1, SCHEMA.size, dtype=torch.float64)
    maps = torch.randn(1, DIM, 3, 3, dtype=torch.float64)
    ours = _model("m2fashion")
    assert ours.attention(maps, nothing).std() > 1e-4
    assert ours.spatial_embedding(nothing).abs().sum() > 0
    # Eq. 1 to the letter gives exactly zero: attention over a zero query is uniform.
    papers = _model("paper")
    assert papers.spatial_embedding(nothing).abs().sum() == 0
    assert papers.attention(maps, nothing).std() < 1e-12


@pytest.mark.parametrize("name", OURS)
def test_gradients_are_right_and_reach_every_parameter_of_the_head(name: str) -> None:
    model = _model(name).train()
    maps = torch.randn(2, DIM, 3, 3, dtype=torch.float64, requires_grad=True)
    conditions = _conditions()[1:3]
    assert torch.autograd.gradcheck(lambda m: model.attend(m, conditions), (maps,))
    z = model.attend(maps[:1].expand(4, -1, -1, -1), _conditions())
    (z * torch.arange(1, z.shape[-1] + 1)).sum().backward()
    if model.config.nuance:
        model.nuance_of(model.see(maps, model.type_conditions[None])).sum().backward()
    unused = {"attribute_head", "category_head", "backbone", "reduce"}
    if name == "without-asa":
        unused |= {"spatial_embedding"}  # alpha does not depend on T1
    if name == "without-aca":
        unused |= {"channel_embedding"}
    for key, parameter in model.named_parameters():
        if key.split(".")[0] not in unused:
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key


def test_features_do_not_depend_on_the_rest_of_the_batch() -> None:
    model = _model("m2fashion")
    images = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(model.features(images)[1:2], model.features(images[1:2]))


@pytest.mark.parametrize("name", ["m2fashion", "without-readout"])
def test_predictions_are_probabilities_read_under_the_type_condition(name: str) -> None:
    model = _model(name)
    maps = torch.randn(3, DIM, 3, 3, dtype=torch.float64)
    got = model.predict(maps)
    assert got.shape == (3, SCHEMA.size)
    torch.testing.assert_close(got[:, 0:3].sum(1), torch.ones(3, dtype=torch.float64))
    # By hand for the multi-valued attribute: the classifier's rows on Z under its type condition.
    condition = torch.from_numpy(SCHEMA.type_condition(1)).double().reshape(1, 1, -1)
    z = model.attend_raw(maps, condition)[:, 0]
    if name == "m2fashion":
        rows = model.values.prototypes[3:5]
        lengths = z.norm(dim=1, keepdim=True) * rows.norm(dim=1)
        logits = math.e * (z @ rows.T) / lengths + model.values.bias[3:5]
    else:
        head = model.attribute_head
        logits = z @ head.weight[3:5].T + head.bias[3:5]
    torch.testing.assert_close(got[:, 3:5], torch.sigmoid(logits))


def test_grid_pools_the_backbone() -> None:
    model = _model("m2fashion")
    assert model.features(torch.randn(1, 3, 64, 64, dtype=torch.float64)).shape == (1, DIM, 3, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"backbon": "resnet18"}, "unknown option 'backbon'"),
        ({"backbone": "vgg"}, "none of resnet18"),
        ({"dim": "512"}, "dim = '512': Expected `int`"),
        ({"dim": True}, "dim = True: Expected `int`"),
    ],
)
def test_wrong_options_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validated(ModelConfig, data, "here")


def test_the_garments_nuance_whitens_what_the_cells_say() -> None:
    """Fitted on pictures that vary in five ways, it tells these apart equally, whatever their
    scale."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(400, 5, generator=generator)
    mixed = latent * torch.tensor([10.0, 3, 1, 0.3, 0.1]) @ torch.randn(5, 12, generator=generator)
    trunk = mixed[:, :, None, None] + torch.randn(400, 12, 3, 3, generator=generator) * 1e-6
    nuance = GarmentNuance(12, 8)
    nuance.fit(nuance.statistics(trunk))
    got = nuance(trunk)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(400))
    # The oracle: standardise the principal components, five of them; three say nothing.
    centred = (mixed - mixed.mean(0)).double()
    left, _, _ = torch.linalg.svd(centred, full_matrices=False)
    white = F.normalize(left[:, :5], dim=1)
    torch.testing.assert_close(got @ got.T, (white @ white.T).float(), atol=0.02, rtol=0)
