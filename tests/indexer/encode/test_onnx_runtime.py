"""Encoding by ONNX Runtime gives what torch gives, and says clearly when it cannot."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer.encode import forward as choose_forward
from indexer.encode import onnx as onnx_runtime
from indexer.encode.encode import BatchEncoder, encode, torch_forward
from indexer.encode.forward import choose_runtime
from indexer.encode.onnx import export_onnx, onnx_forward
from indexer.store.store import open_store
from training.errors import DataError, ResourceError, UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import VARIANTS, ModelConfig
from training.models.m2fashion import M2Fashion

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"
PHOTOGRAPHS = SHARED / "data/street-clothing"
WEIGHTS = SHARED / "weights/resnet18-imagenet-layer3.safetensors"

MODELS = {
    "resnet18": (ModelConfig("resnet18", "layer2", grid=4, dim=16), 32),
    "resnet50": (ModelConfig("resnet50", "layer2", grid=2, dim=16), 32),
    "resnet50v2": (ModelConfig("resnet50v2", "layer2", grid=2, dim=16), 32),
    "resnet18, uneven": (ModelConfig("resnet18", "layer3", grid=5, dim=16), 72),
    "resnet50v2, uneven": (ModelConfig("resnet50v2", "layer2", grid=3, dim=16), 40),
    "uneven cells": (ModelConfig("small", "layer3", grid=7, dim=16), 72),  # 9 x 9 -> 7 x 7
    "upwards": (ModelConfig("small", "layer3", grid=7, dim=16), 64),  # 4 x 4 -> 7 x 7
} | {
    name: (dataclasses.replace(ModelConfig("small", "layer2", grid=4, dim=16), **options), 32)
    for name, options in VARIANTS.items()
    if "architecture" not in options  # the others are rivals and cannot be exported
}


def lively_model(config: ModelConfig, size: int, seed: int = 0) -> M2Fashion:
    """A random model whose batch norms, those of the stages' scales among them, have seen images,
    so that mode mistakes show."""
    torch.manual_seed(seed)
    model = M2Fashion(SCHEMA, config)
    with torch.no_grad():
        model.features(torch.randn(8, 3, size, size) * 2 + 0.5)
    return model.eval().requires_grad_(False)


def bytes_by_both(model: M2Fashion, pixels, preprocessing) -> list[np.ndarray]:
    """Descriptors [B, width] as int, by torch and by onnx."""
    out = []
    for forward in (torch_forward(model), onnx_forward(model, preprocessing.size)):
        batch = encode(forward, pixels, preprocessing, "cpu")
        out.append(model.layout.pack(batch.chances, batch.nuance).astype(int))
    return out


@pytest.fixture
def runtime() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", MODELS)
def test_equals_torch_for_every_batch_size(name: str) -> None:
    config, size = MODELS[name]
    model = lively_model(config, size)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    forward = onnx_forward(model, size)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    for batch in (1, 2, 5, 3):
        images = torch.randn(batch, 3, size, size)
        images[0] = 2.64  # a plain ground, where a deviation is rounding errors alone
        found = forward(images)
        with torch.inference_mode():
            expected = model.describe(model.trunk(images))
        for part in ("chances", "nuance"):
            torch.testing.assert_close(
                getattr(found, part), getattr(expected, part), rtol=1e-4, atol=1e-4
            )


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("name", ["resnet18", "uneven cells", "paper", "gmp"])
def test_descriptors_agree(name: str) -> None:
    config, size = MODELS[name]
    model = lively_model(config, size)
    pixels = np.random.default_rng(0).integers(0, 256, (13, 3, size, size)).astype(np.uint8)
    by_torch, by_onnx = bytes_by_both(model, pixels, Preprocessing(size=size))
    assert np.abs(by_torch - by_onnx).max() <= 1


@pytest.mark.usefixtures("runtime")
def test_an_index_by_either_runtime_is_one_index(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 20)
    checkpoint = tiny_checkpoint(tmp_path / "run")
    first, more = gallery(tmp_path, paths[:8]), gallery(tmp_path, paths)
    stores = {}
    for name in ("torch", "onnx"):
        report = build(more, checkpoint, tmp_path / name, runtime=name)
        assert (report.runtime, report.encoded) == (name, 20)
        stores[name] = open_store(tmp_path / name)
    assert not list((tmp_path / "onnx").rglob(".tmp-*"))
    assert stores["torch"].manifest.identity == stores["onnx"].manifest.identity
    assert build(first, checkpoint, tmp_path / "mixed", runtime="torch").encoded == 8
    report = build(more, checkpoint, tmp_path / "mixed", runtime="onnx")
    assert (report.encoded, report.kept) == (12, 8)
    stores["mixed"] = open_store(tmp_path / "mixed")
    right = stores["torch"].descriptors().astype(int)
    for name in ("onnx", "mixed"):
        assert np.abs(stores[name].descriptors() - right).max() <= 1


@pytest.mark.usefixtures("runtime")
def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 4)), tiny_checkpoint(tmp_path)
    checkpoint.model.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        build(dataset, checkpoint, tmp_path / "out", runtime="onnx")
    checkpoint.model.conv.weight[0, 0, 0, 0] = 0.1
    describe = checkpoint.model.describe
    checkpoint.model.describe = lambda trunk: describe(torch.fft.fft2(trunk).real)
    with pytest.raises(ResourceError, match=r"cannot be exported .* use --runtime torch"):
        build(dataset, checkpoint, tmp_path / "out", runtime="onnx")
    assert not list((tmp_path / "out").rglob(".tmp-*"))


@pytest.mark.usefixtures("runtime")
def test_results_that_are_not_those_of_torch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config, size = MODELS["gmp"]
    model, other = lively_model(config, size), lively_model(config, size, seed=1)
    monkeypatch.setattr(onnx_runtime, "export_onnx", lambda _, size: export_onnx(other, size))
    with pytest.raises(ResourceError, match="onnxruntime gives other chances than torch"):
        onnx_forward(model, size)
    monkeypatch.setattr(onnx_runtime, "export_onnx", lambda _, size: b"")
    with pytest.raises(ResourceError, match="cannot read the exported model"):
        onnx_forward(model, size)


@pytest.mark.usefixtures("runtime")
def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    class Small(onnxruntime.InferenceSession):
        def run(self, names, feeds):
            if len(feeds["images"]) > 3:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 9")
            return super().run(names, feeds)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Small)
    config, size = MODELS["gmp"]
    said: list[str] = []
    forward = onnx_forward(lively_model(config, size), size)
    encoder = BatchEncoder(forward, Preprocessing(size=size), "cpu", said.append)
    pixels = np.zeros((8, 3, size, size), dtype=np.uint8)
    results = encoder.results(pixels, encoder.start(pixels))
    assert [len(result.chances) for result in results] == [2, 2, 2, 2]
    assert said[-1] == "out of memory on cpu: going on with 2 at a time"


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_without_the_extra(absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 4)), tiny_checkpoint(tmp_path)
    with pytest.raises(ResourceError) as raised:
        build(dataset, checkpoint, tmp_path / "out", runtime="onnx")
    assert raised.value.exit_code == 6
    assert 'pip install "m2fashion-retrieval[onnx]"' in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert choose_runtime("auto", "auto", "cpu") == ("torch", "float32")
    assert build(dataset, checkpoint, tmp_path / "out", runtime="auto").runtime == "torch"


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_forward, "load_onnxruntime", lambda: None)
    monkeypatch.setattr(choose_forward, "has_fast_bfloat16", lambda kind: True)
    for wanted, precision, device, chosen in (
        ("torch", "auto", "cpu", ("torch", "float32")),
        ("torch", "bfloat16", "cpu", ("torch", "bfloat16")),
        ("torch", "auto", "cuda", ("torch", "bfloat16")),
        ("torch", "float32", "cuda", ("torch", "float32")),
        ("onnx", "auto", "cpu", ("onnx", "float32")),
        ("auto", "auto", "cpu", ("onnx", "float32")),
        ("onnx-int8", "auto", "cpu", ("onnx-int8", "int8")),
        ("auto", "auto", "cuda:1", ("torch", "bfloat16")),
    ):
        assert choose_runtime(wanted, precision, device) == chosen
    for wanted, precision, device, message in (
        ("onnx", "auto", "cuda:1", "add --device cpu"),
        ("openvino", "auto", "cpu", "'openvino'; choose torch, onnx, onnx-int8, auto"),
        ("onnx-int8", "bfloat16", "cpu", "onnx-int8 computes in int8, not in bfloat16"),
        ("torch", "half", "cpu", "unknown precision 'half'"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_runtime(wanted, precision, device)
    monkeypatch.setattr(choose_forward, "has_fast_bfloat16", lambda kind: False)
    assert choose_runtime("torch", "auto", "cuda") == ("torch", "float32")


@pytest.mark.shared
@pytest.mark.usefixtures("runtime")
@pytest.mark.skipif(
    not (PHOTOGRAPHS.is_dir() and WEIGHTS.is_file()), reason="no ../shared beside the checkout"
)
def test_photographs_through_a_pretrained_backbone() -> None:
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, ModelConfig("resnet18", dim=128), weights=str(WEIGHTS))
    model.eval().requires_grad_(False)
    preprocessing = Preprocessing(size=112)
    files = sorted(PHOTOGRAPHS.rglob("*.jpg"))[:24]
    pixels = np.stack([preprocessing.open(file) for file in files])
    by_torch, by_onnx = bytes_by_both(model, pixels, preprocessing)
    assert len(by_onnx) == 24
    assert np.abs(by_torch - by_onnx).max() <= 1
