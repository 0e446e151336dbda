"""The GPU's path as far as a CPU goes: a backbone in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_onnx_runtime import SHOWN, lively_model, noise
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer.encode.on_torch import torch_forward
from indexer.store.store import open_store
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion


@pytest.mark.parametrize("lower", [True, False])
def test_bfloat16_is_of_the_backbone_alone(lower: bool) -> None:
    config = ModelConfig("resnet18", "layer2", grid=4, dim=16, lower_stages=lower)
    model, pixels = lively_model(config, 32), noise(4)
    right = torch_forward(model, SHOWN, "cpu").run(pixels)
    rounded = torch_forward(model, SHOWN, "cpu", "bfloat16").run(pixels)
    images = normalise(torch.from_numpy(pixels), SHOWN)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            trunk = model.trunk(images.contiguous(memory_format=torch.channels_last))
        expected = model.describe(trunk.float())
    assert {rounded.chances.dtype, rounded.nuance.dtype} == {np.dtype(np.float32)}
    np.testing.assert_allclose(rounded.chances, expected.chances, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rounded.nuance, expected.nuance, rtol=1e-4, atol=1e-5)
    error = np.linalg.norm(rounded.chances - right.chances) / np.linalg.norm(right.chances)
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
