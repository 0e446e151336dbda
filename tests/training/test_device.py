"""The machine: its allocator, number formats, and that a step in bfloat16 is one in float32."""

import platform
from dataclasses import replace

import pytest
import torch
from test_step import PLAIN, TRIPLETS, _batch_of, _model

from training.device import autocast, has_fast_bfloat16, keep_freed_memory
from training.step import Objective


@pytest.mark.parametrize(
    ("setting", "amx", "expected"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("float32", True, False),
        ("bfloat16", False, True),
    ],
)
def test_the_format_follows_the_setting_and_the_machine(
    setting: str, amx: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx})
    product = torch.ones(4, 4)
    with autocast(setting, "cpu"):
        got = (product @ product).dtype
    assert got == (torch.bfloat16 if expected else torch.float32)


def test_a_machine_that_does_not_know_the_instruction_has_it_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not has_fast_bfloat16("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not has_fast_bfloat16("cuda")


@pytest.mark.parametrize("recipe", [PLAIN, TRIPLETS], ids=["batch", "triplets"])
@pytest.mark.parametrize("name", ["m2fashion", "asen"])
def test_a_step_in_bfloat16_is_near_that_in_float32(name: str, recipe: object) -> None:
    model = _model(name)
    batch = _batch_of(12, [0, 1, 2, 0] if recipe is TRIPLETS else None)
    found, gradients = [], []
    for precision in ("float32", "bfloat16"):
        objective = Objective(model, replace(recipe, precision=precision), freeze="none")
        losses = objective(batch, torch.Generator().manual_seed(0))
        assert losses.total.dtype == torch.float32
        model.zero_grad()
        losses.total.backward()
        found.append(losses.numbers())
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert found[0] != found[1]
    assert found[1] == pytest.approx(found[0], rel=0.05, abs=0.01)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97


def test_glibc_takes_the_settings_and_torch_goes_on() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    total = sum(float(torch.ones(1 << 20).sum()) for _ in range(8))
    assert total == 8 * (1 << 20)
