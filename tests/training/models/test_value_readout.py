"""The readout against loops over images, conditions and attributes, in float64."""

import math

import pytest
import torch
from slow_readout import slow_readout
from torch import Tensor

from training.models.value_readout import ValueReadout
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
    assert got.shape == (4, 5, DIM)
    for image in range(4):
        for number in range(5):
            condition = conditions[image if own else 0, number].tolist()
            weights = readout.state_dict()
            expected = slow_readout(weights, SCHEMA, z[image, number].tolist(), condition)
            torch.testing.assert_close(
                got[image, number], torch.tensor(expected, dtype=torch.float64)
            )


def test_a_condition_that_names_nothing_only_normalises(readout: ValueReadout) -> None:
    z = torch.randn(3, 2, DIM, dtype=torch.float64)
    got = readout(z, torch.zeros(1, 2, SCHEMA.size, dtype=torch.float64))
    torch.testing.assert_close(got, z / z.norm(dim=-1, keepdim=True))


def test_a_certain_classifier_writes_the_values_that_it_sees_along_their_axes() -> None:
    torch.manual_seed(2)
    readout = ValueReadout(SCHEMA, 16).double()  # dimensions for an axis of each value, and more
    with torch.no_grad():
        readout.log_scale.fill_(math.log(1e4))
    unit = readout.prototypes / readout.prototypes.norm(dim=1, keepdim=True)
    z = unit[1] + 0.01 * torch.randn(16, dtype=torch.float64)  # nearly striped
    collar = 6 + int((unit[6:8] @ z).argmax())
    for names, seen in ((["pattern"], [1]), (["pattern", "collar"], [1, collar])):
        condition = torch.from_numpy(SCHEMA.condition(types=names)).double().reshape(1, 1, -1)
        got = readout(z.reshape(1, 1, -1), condition)[0, 0]
        along = readout.axes @ got
        named = [k for n in names for k in VALUES[["pattern", "colour", "collar"].index(n)]]
        expected = torch.zeros(8, dtype=torch.float64)
        expected[seen] = along[1]
        assert float(along[seen].detach().norm()) > 0.98
        torch.testing.assert_close(along[named], expected[named])


def test_the_cosine_of_two_images_is_their_chance_to_share_a_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.models.value_readout.DOUBT", 1.0)
    monkeypatch.setattr("training.models.value_readout.LIKENESS", 0.0)
    torch.manual_seed(3)
    readout = ValueReadout(SCHEMA, 1024)
    z = torch.randn(40, 1, 1024)
    z[:, 0] += 20 * torch.randn(40, SCHEMA.size) @ readout.prototypes.detach()
    for names in (["pattern"], ["colour"], ["pattern", "collar"]):
        condition = torch.from_numpy(SCHEMA.condition(types=names)).float().reshape(1, 1, -1)
        with torch.no_grad():
            got = readout(z, condition)[:, 0]
            shared = torch.zeros(40, 40)
            for name in names:
                number = ["pattern", "colour", "collar"].index(name)
                logits = readout.logits(z[:, 0], number)
                likely = logits.sigmoid() if name == "colour" else logits.softmax(-1)
                likely = likely / likely.sum(-1, keepdim=True)
                shared += likely @ likely.T / len(names)
        others = ~torch.eye(40, dtype=torch.bool)
        assert shared[others].std() > 0.15
        torch.testing.assert_close((got @ got.T)[others], shared[others], atol=0.16, rtol=0)
        torch.testing.assert_close((got * got).sum(-1), torch.ones(40))


def test_of_images_whose_value_is_certain_the_more_alike_are_nearer() -> None:
    torch.manual_seed(4)
    readout = ValueReadout(SCHEMA, 64)
    with torch.no_grad():
        readout.log_scale.fill_(math.log(1e3))
    z = readout.prototypes[1].detach() + 0.05 * torch.randn(20, 1, 64)
    condition = torch.from_numpy(SCHEMA.type_condition(0)).float().reshape(1, 1, -1)
    assert readout.logits(z, 0).softmax(-1)[..., 1].min() > 0.999
    with torch.no_grad():
        near = readout(z, condition)[:, 0]
    alike = torch.nn.functional.normalize(z[:, 0], dim=-1)
    got, expected = (m[0] @ m[1:].T for m in (near, alike))
    assert float(torch.corrcoef(torch.stack([got, expected]))[0, 1]) > 0.9


def test_axes_are_of_length_one_and_orthogonal_as_far_as_there_are_dimensions() -> None:
    wide = Schema((Attribute("style", tuple(f"style {n}" for n in range(12))), *SCHEMA.attributes))
    roomy, few, fewer = (ValueReadout(wide, dim).axes for dim in (20, 12, 8))
    for axes in (roomy, few, fewer):
        torch.testing.assert_close(axes.norm(dim=1), torch.ones(20))
        assert len({tuple(row) for row in axes.round(decimals=3).tolist()}) == 20
    for part in (roomy, few[:12], few[12:15], fewer[12:15]):
        torch.testing.assert_close(part @ part.T, torch.eye(len(part)), atol=1e-5, rtol=0)


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
