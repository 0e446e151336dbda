"""The GPU's path as far as a CPU goes: a backbone in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_onnx_runtime import MODELS, lively_model
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer.encode.encode import torch_forward
from indexer.store.store import open_store
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion


@pytest.mark.parametrize("name", ["resnet18", "without-lower-stages"])
def test_bfloat16_is_of_the_backbone_alone(name: str) -> None:
    config, size = MODELS[name]
    model = lively_model(config, size)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        right = torch_forward(model)(images)
        rounded = torch_forward(model, "bfloat16")(images)
        with torch.autocast("cpu", torch.bfloat16):
            trunk = model.trunk(images.contiguous(memory_format=torch.channels_last))
        expected = model.describe(trunk.float())
    assert {rounded.chances.dtype, rounded.nuance.dtype} == {torch.float32}
    torch.testing.assert_close(rounded.chances, expected.chances)
    torch.testing.assert_close(rounded.nuance, expected.nuance)
    error = (rounded.chances - right.chances).norm() / right.chances.norm()
    assert 1e-5 < error < 0.05


def test_bfloat16_and_float32_never_mix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, ModelConfig("small", "layer2", 2, 8)).eval()
    save_checkpoint(tmp_path / "run", model, Preprocessing(size=16), (), {})
    loaded = load_checkpoint(tmp_path / "run")
    paths = write_images(tmp_path, 16)
    out = tmp_path / "out"
    assert build(gallery(tmp_path, paths[:8]), loaded, out).encoded == 8
    report = build(gallery(tmp_path, paths), loaded, out, precision="bfloat16")
    assert (report.encoded, report.kept) == (16, 0)
    assert open_store(out).manifest.identity.precision == "bfloat16"
    assert build(gallery(tmp_path, paths), loaded, out, precision="bfloat16").kept == 16


def test_the_number_of_images_at_a_time_is_chosen(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 5))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    assert build(dataset, checkpoint, tmp_path / "out", batch_size=None).encoded == 5
    with pytest.raises(UsageError, match="batch_size must be at least 1, got 0"):
        build(dataset, checkpoint, tmp_path / "out", batch_size=0)
