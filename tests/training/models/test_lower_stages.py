"""The maps of all stages against the backbone's layers hooked by hand and pooled by loops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue
from torch import Tensor

from training.datasets import load_dataset
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import bank_from_images
from training.models.backbones import lower_channels
from training.models.config import ModelConfig, build_model
from training.models.embedder import ConditionedEmbedder
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")),))
LAYERS = {
    ("resnet18", "layer3"): (("layer1", 64), ("layer2", 128), ("layer3", 256)),
    ("resnet18", "layer1"): (("layer1", 64),),
    ("resnet50v2", "layer2"): (("stage1", 256), ("", 512)),  # the last stage has passed `post`
    ("small", "layer3"): (("layer1", 48), ("layer2", 96), ("layer3", 128)),
}


def _model(backbone: str, stage: str, grid: int, lower_stages: bool = True) -> ConditionedEmbedder:
    torch.manual_seed(0)
    config = ModelConfig(backbone, stage, grid, 8, lower_stages=lower_stages)
    return build_model(SCHEMA, config).eval()


def _cells(size: int, grid: int) -> list[slice]:
    """The rows of each cell: from the floor to the ceiling, so that uneven cells overlap."""
    return [slice(n * size // grid, -(-(n + 1) * size // grid)) for n in range(grid)]


def _pooled(maps: np.ndarray, grid: int, deviation: bool = False) -> np.ndarray:
    out = np.zeros((*maps.shape[:2], grid, grid))
    for y, rows in enumerate(_cells(maps.shape[2], grid)):
        for x, columns in enumerate(_cells(maps.shape[3], grid)):
            cell = maps[:, :, rows, columns].astype(np.float64)
            mean = cell.mean((2, 3))
            out[:, :, y, x] = np.maximum(cell.std((2, 3)), 0.01) if deviation else mean
    return out


@pytest.mark.parametrize(("size", "grid"), [(64, 4), (72, 5), (40, 3)])
@pytest.mark.parametrize(("backbone", "stage"), LAYERS)
def test_equals_hooks_and_loops(backbone: str, stage: str, size: int, grid: int) -> None:
    model = _model(backbone, stage, grid)
    images = torch.randn(2, 3, size, size) * 1.5
    seen: dict[str, np.ndarray] = {}
    hooks = [
        model.backbone.get_submodule(name).register_forward_hook(
            # Copied at once: what follows must not have changed it in place.
            lambda _, __, output, name=name: seen.update({name: output.numpy().copy()})
        )
        for name, _ in LAYERS[backbone, stage]
    ]
    with torch.inference_mode():
        model.backbone(images)
        for hook in hooks:
            hook.remove()
        got = model.trunk(images).numpy()
    parts = [_pooled(images.numpy(), grid), _pooled(images.numpy(), grid, deviation=True)]
    for name, channels in LAYERS[backbone, stage]:
        assert seen[name].shape[1] == channels
        parts.append(_pooled(seen[name], grid))
    expected = np.concatenate(parts, 1)
    assert got.shape == expected.shape
    assert got.shape[1] == model.last_stage.stop
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone", "stage"), LAYERS)
def test_the_last_stage_is_what_there_was_without(backbone: str, stage: str) -> None:
    model, plain = _model(backbone, stage, 3), _model(backbone, stage, 3, lower_stages=False)
    images = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(model.trunk(images)[:, model.last_stage], plain.trunk(images))
    assert plain.last_stage.start == 0
    assert isinstance(plain.standardise, torch.nn.Identity)
    below = lower_channels(backbone, stage)
    assert model.last_stage == slice(below, below + plain.last_stage.stop)


@pytest.mark.parametrize("colour", [2.64, -2.1179, 0.0])
def test_the_deviation_of_a_plain_ground_is_no_noise(colour: float) -> None:
    """A square loses up to 1e-6 in float32, the root of which would be seen."""
    model = _model("small", "layer1", 3)
    images = torch.full((1, 3, 50, 50), colour)
    with torch.inference_mode():
        trunk = model.trunk(images)
    torch.testing.assert_close(trunk[:, :3], torch.full((1, 3, 3, 3), colour))
    torch.testing.assert_close(trunk[:, 3:6], torch.full((1, 3, 3, 3), 0.01), atol=0, rtol=1e-6)


def test_features_are_reduced_after_their_scales_are_made_alike() -> None:
    model = _model("small", "layer2", 2)
    norm = model.standardise
    assert isinstance(norm, torch.nn.BatchNorm2d)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 9)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        trunk = model.trunk(images)
        mean, variance = norm.running_mean, norm.running_var
        assert isinstance(mean, Tensor)
        assert isinstance(variance, Tensor)
        even = (trunk - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(model.features(images), model.reduce(even))


def test_the_floor_does_not_depend_on_them(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 6)))
    rows = np.arange(6, dtype=np.int64)
    pooled = []
    for lower_stages in (True, False):
        torch.manual_seed(0)
        config = replace(ModelConfig("small", "layer2", 3, 8), lower_stages=lower_stages)
        model = build_model(dataset.schema, config).eval()
        bank, _ = bank_from_images(model, dataset, rows, Reading(Preprocessing(size=32)))
        pooled.append(bank.pooled)
    assert pooled[0].shape == (6, 96)
    np.testing.assert_allclose(pooled[0], pooled[1], atol=1e-6)
