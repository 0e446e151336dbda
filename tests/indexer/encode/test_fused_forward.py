"""Batch norms folded into convolutions: the same, by fewer steps."""

from __future__ import annotations

import pytest
import torch
from test_onnx_runtime import MODELS, lively_model
from torch import nn

from indexer.encode.encode import torch_forward
from indexer.encode.forward import fused_forward


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_model_for_every_batch_size(name: str) -> None:
    config, size = MODELS[name]
    model = lively_model(config, size)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    forward = fused_forward(model)
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, size, size)
        with torch.inference_mode():
            found, right = forward(images), torch_forward(model)(images)
        for part in ("chances", "nuance"):
            ours, theirs = getattr(found, part), getattr(right, part)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "m2fashion"])
def test_no_batch_norm_of_the_backbone_is_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, size = MODELS[name]
    model = lively_model(config, size)
    calls = []
    plain = nn.BatchNorm2d.forward

    def counted(self: nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
        calls.append(self)
        return plain(self, images)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", counted)
    images = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        torch_forward(model)(images)
        before = set(calls)
        calls.clear()
        fused_forward(model)(images)
    own = {module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)}
    assert before == own | set(calls)
    assert not own & set(calls)


def test_a_model_in_training_mode_is_taken_out_of_it() -> None:
    config, size = MODELS["m2fashion"]
    model = lively_model(config, size)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        right = torch_forward(model)(images)
        found = fused_forward(model.train())(images)
    torch.testing.assert_close(found.chances, right.chances, rtol=1e-4, atol=1e-5)
