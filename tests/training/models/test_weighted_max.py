"""The maximum of the weighted map against its dense form, with and without a gradient."""

import pytest
import torch
from torch import Tensor

from training.models.m2fashion import weighted_max


def _inputs(kind: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """flat [3, 7, 11] of both signs, weights [3, 4, 11]."""
    torch.manual_seed(5)
    return torch.randn(3, 7, 11, dtype=kind), torch.rand(3, 4, 11, dtype=kind)


def _dense(flat: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(2) * flat.unsqueeze(1)).amax(-1)


def test_values_by_loops_in_both_paths() -> None:
    flat, weights = _inputs()
    plain = weighted_max(flat, weights)
    with torch.no_grad():
        assert torch.equal(weighted_max(flat.clone().requires_grad_(), weights), plain)
    followed = weighted_max(flat.clone().requires_grad_(), weights)
    assert followed.requires_grad
    assert torch.equal(followed, plain)
    assert plain.shape == (3, 4, 7)
    for b in range(3):
        for c in range(4):
            for i in range(7):
                best = max(float(weights[b, c, n] * flat[b, i, n]) for n in range(11))
                assert float(plain[b, c, i]) == best


@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)])
def test_gradients_are_those_of_the_dense_form(which: tuple[bool, bool]) -> None:
    upstream = torch.randn(3, 4, 7, dtype=torch.float64)
    found = []
    for form in (weighted_max, _dense):
        inputs = _inputs()
        for tensor, wanted in zip(inputs, which, strict=True):
            tensor.requires_grad_(wanted)
        (form(*inputs) * upstream).sum().backward()
        found.append([tensor.grad for tensor in inputs])
    for got, expected, wanted in zip(*found, which, strict=True):
        assert (got is not None) == wanted
        if wanted:
            torch.testing.assert_close(got, expected)


def test_gradcheck() -> None:
    flat, weights = (tensor.requires_grad_() for tensor in _inputs())
    assert torch.autograd.gradcheck(weighted_max, (flat, weights))


def test_a_tie_gives_its_gradient_to_one_place() -> None:
    flat = torch.ones(1, 1, 3, requires_grad=True)
    weighted_max(flat, torch.ones(1, 1, 3)).sum().backward()
    assert flat.grad is not None
    assert sorted(flat.grad.flatten().tolist()) == [0, 0, 1]


def test_maps_in_half_precision_with_weights_in_full() -> None:
    """What autocast gives on a GPU, where a softmax is float32."""
    flat, weights = _inputs(torch.float32)
    half = flat.bfloat16().requires_grad_()
    weights.requires_grad_()
    weighted_max(half, weights).sum().backward()
    expected = flat.bfloat16().float().requires_grad_()
    same = weights.detach().clone().requires_grad_()
    _dense(expected, same).sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), expected.grad, rtol=0.01, atol=0.01)
    torch.testing.assert_close(weights.grad, same.grad)
