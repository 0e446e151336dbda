"""The readout against loops over images, conditions and attributes, in float64."""

import math

import pytest
import torch
from torch import Tensor

from training.models.prototype_readout import PrototypeReadout
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue", "green"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
VALUES = (range(0, 3), range(3, 6), range(6, 8))
DIM = 5


@pytest.fixture
def readout() -> PrototypeReadout:
    torch.manual_seed(2)
    made = PrototypeReadout(SCHEMA, DIM).double()
    with torch.no_grad():
        made.bias.normal_()
        made.log_scale.fill_(1.0)
    return made


def _conditions() -> Tensor:
    """[5, K]: nothing, a single-valued type, a multi-valued one, values of two, all but one."""
    rows = [
        SCHEMA.condition(),
        SCHEMA.condition(types=["pattern"]),
        SCHEMA.condition(types=["colour"]),
        SCHEMA.condition(present=["red", "v-neckline"]),
        SCHEMA.condition(types=["pattern"], absent=["blue"]),
    ]
    return torch.stack([torch.from_numpy(row) for row in rows]).double()


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def _slow(readout: PrototypeReadout, z: list[float], condition: list[float]) -> list[float]:
    directions = [_unit(row) for row in readout.prototypes.tolist()]
    bias, scale = readout.bias.tolist(), math.exp(float(readout.log_scale.detach()))
    z = _unit(z)
    named = [t for t in range(3) if any(condition[k] != 0 for k in VALUES[t])]
    moved = list(z)
    for t in named:
        logits = [
            scale * sum(a * b for a, b in zip(z, directions[k], strict=True)) + bias[k]
            for k in VALUES[t]
        ]
        if t == 1:
            chances = [1 / (1 + math.exp(-s)) for s in logits]
            chances = [c / max(1.0, sum(chances)) for c in chances]
        else:
            chances = [math.exp(s) / sum(math.exp(o) for o in logits) for s in logits]
        for k, chance in zip(VALUES[t], chances, strict=True):
            for i in range(DIM):
                moved[i] += 2.0 * chance * directions[k][i] / len(named)
    return _unit(moved)


@pytest.mark.parametrize("own", [False, True])
def test_equals_loops(readout: PrototypeReadout, own: bool) -> None:
    """Conditions that all images share [1, C, K], and each image's own [B, C, K]."""
    z = 3 * torch.randn(4, 5, DIM, dtype=torch.float64)
    conditions = _conditions().unsqueeze(0)
    if own:  # so that an attribute is named for some images of a column and not for others
        conditions = torch.stack([conditions[0].roll(n, 0) for n in range(4)])
    got = readout(z, conditions)
    assert got.shape == (4, 5, DIM)
    for image in range(4):
        for number in range(5):
            condition = conditions[image if own else 0, number].tolist()
            expected = _slow(readout, z[image, number].tolist(), condition)
            torch.testing.assert_close(
                got[image, number], torch.tensor(expected, dtype=torch.float64)
            )


def test_a_condition_that_names_nothing_only_normalises(readout: PrototypeReadout) -> None:
    z = torch.randn(3, 2, DIM, dtype=torch.float64)
    got = readout(z, torch.zeros(1, 2, SCHEMA.size, dtype=torch.float64))
    torch.testing.assert_close(got, z / z.norm(dim=-1, keepdim=True))


def test_a_certain_classifier_moves_by_two_towards_the_values_that_it_sees(
    readout: PrototypeReadout,
) -> None:
    with torch.no_grad():
        readout.log_scale.fill_(math.log(1e4))
        readout.bias.zero_()
        readout.prototypes.copy_(torch.randn(SCHEMA.size, DIM))
    unit = readout.prototypes / readout.prototypes.norm(dim=1, keepdim=True)
    z = unit[1] + 0.01 * torch.randn(DIM, dtype=torch.float64)  # nearly striped
    z = z / z.norm()
    collar = 6 + int((unit[6:8] @ z).argmax())
    for names, pull in (
        (["pattern"], 2 * unit[1]),
        (["pattern", "collar"], unit[1] + unit[collar]),
    ):
        condition = torch.from_numpy(SCHEMA.condition(types=names)).double().reshape(1, 1, -1)
        expected = (z + pull) / (z + pull).norm()
        torch.testing.assert_close(readout(z.reshape(1, 1, -1), condition)[0, 0], expected)


def test_logits_are_scaled_cosines_whatever_the_length(readout: PrototypeReadout) -> None:
    z = torch.randn(3, DIM, dtype=torch.float64)
    for number, values in enumerate(VALUES):
        got = readout.logits(7 * z, number)
        for image in range(3):
            for place, k in enumerate(values):
                near = torch.cosine_similarity(z[image], readout.prototypes[k], dim=0)
                expected = math.e * near + readout.bias[k]
                torch.testing.assert_close(got[image, place], expected)


def test_gradients(readout: PrototypeReadout) -> None:
    z = torch.randn(2, 5, DIM, dtype=torch.float64, requires_grad=True)
    parameters = tuple(readout.parameters())
    assert len(parameters) == 3

    def run(z: Tensor, *_: Tensor) -> Tensor:
        out: Tensor = readout(z, _conditions().unsqueeze(0))
        return out

    assert torch.autograd.gradcheck(run, (z, *parameters))
