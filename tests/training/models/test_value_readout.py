"""The readout against loops over images, conditions and attributes, in float64."""

import math

import pytest
import torch
from slow_readout import slow_readout
from torch import Tensor

from training.models.embedder import LABELLED, ValueReadout
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
def readout() -> ValueReadout:
    torch.manual_seed(2)
    made = ValueReadout(SCHEMA, DIM).double()
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


@pytest.mark.parametrize("own", [False, True])
def test_equals_loops(readout: ValueReadout, own: bool) -> None:
    """Conditions that all images share [1, C, K], and each image's own [B, C, K]."""
    z = 3 * torch.randn(4, 5, DIM, dtype=torch.float64)
    conditions = _conditions().unsqueeze(0)
    if own:  # so that an attribute is named for some images of a column and not for others
        conditions = torch.stack([conditions[0].roll(n, 0) for n in range(4)])
    got = readout(z, conditions)
    assert got.shape == (4, 5, SCHEMA.size)
    for image in range(4):
        for number in range(5):
            condition = conditions[image if own else 0, number].tolist()
            weights = readout.state_dict()
            expected = slow_readout(weights, SCHEMA, z[image, number].tolist(), condition)
            torch.testing.assert_close(
                got[image, number], torch.tensor(expected, dtype=torch.float64)
            )


def test_a_condition_that_names_nothing_gives_nothing(readout: ValueReadout) -> None:
    z = torch.randn(3, 2, DIM, dtype=torch.float64)
    got = readout(z, torch.zeros(1, 2, SCHEMA.size, dtype=torch.float64))
    assert torch.equal(got, torch.zeros(3, 2, SCHEMA.size, dtype=torch.float64))


def test_logits_are_scaled_cosines_whatever_the_length(readout: ValueReadout) -> None:
    z = torch.randn(3, DIM, dtype=torch.float64)
    for number, values in enumerate(VALUES):
        got = readout.logits(7 * z, number)
        for image in range(3):
            for place, k in enumerate(values):
                near = torch.cosine_similarity(z[image], readout.prototypes[k], dim=0)
                expected = math.e * near + readout.bias[k]
                torch.testing.assert_close(got[image, place], expected)


def test_gradients(readout: ValueReadout) -> None:
    z = torch.randn(2, 5, DIM, dtype=torch.float64, requires_grad=True)
    parameters = tuple(readout.parameters())
    assert len(parameters) == 3

    def run(z: Tensor, *_: Tensor) -> Tensor:
        out: Tensor = readout(z, _conditions().unsqueeze(0))
        return out

    assert torch.autograd.gradcheck(run, (z, *parameters))


def test_chances_that_say_too_much_are_softened() -> None:
    kinds = Attribute("kind", ("a", "b", "c")), Attribute("many", ("d", "e", "f"), multi=True)
    readout = ValueReadout(Schema((*kinds, Attribute("rare", ("g", "h")))), 4)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator)
    true = torch.multinomial(logits.softmax(-1), 1, generator=generator)
    single = torch.full((4000, 3), -1).scatter_(1, true, 1)
    many = torch.where(torch.rand(4000, 3, generator=generator) < logits.sigmoid(), 1, -1)
    rare = torch.zeros(4000, 2, dtype=torch.long)
    rare[: LABELLED - 1, 0] = 1
    labels = torch.cat([single, many, rare], 1).to(torch.int8)
    # It says three times what is so of one attribute, half of it of the other.
    said = [(3 * logits).softmax(-1), (0.5 * logits).sigmoid(), torch.full((4000, 2), 0.1)]
    found = readout.calibrate(torch.cat(said, 1), labels)
    assert readout.temperatures.tolist() == pytest.approx([3, 0.5, 1], rel=0.08)
    calibrated = [logits.softmax(-1), logits.sigmoid(), said[2]]
    torch.testing.assert_close(found, torch.cat(calibrated, 1), rtol=0, atol=0.03)
    before = readout.temperatures.tolist()
    readout.calibrate(torch.cat(calibrated, 1), labels)
    assert readout.temperatures.tolist() == pytest.approx(before, rel=0.08)
