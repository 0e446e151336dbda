"""A checkpoint's ONNX files give what torch gives, and training leaves them."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from tiny_catalogue import write_tiny_catalogue
from torch import nn

import training
from training import export
from training.checkpoint import (
    CHECKPOINT_KEY,
    ONNX,
    ONNX_INT8,
    OUTPUTS,
    PREPROCESSING_KEY,
    SCHEMA_KEY,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from training.datasets import load_dataset
from training.errors import DataError, ResourceError
from training.export import (
    Parity,
    export_checkpoint,
    exported,
    measured_ranges,
    quantise_backbone,
    quantised_nodes,
    quantised_tensors,
    sample_pictures,
)
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.config import VARIANTS, Freeze, ModelConfig, variant
from training.models.m2fashion import M2Fashion
from training.recipe import Recipe
from training.run import RunConfig, Setting, run_training
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("neck", ("v", "round")),
        Attribute("pattern", ("floral", "striped", "plain"), multi=True),
        Attribute("fit", ("slim", "loose", "boxy")),
        Attribute("sleeve", ("long", "short")),
    )
)
CONDITIONS = torch.from_numpy(
    np.stack(
        [
            SCHEMA.condition(types=["pattern"]),
            SCHEMA.condition(["floral", "v"], ["boxy"]),
            SCHEMA.condition(),
        ]
    )
).float()
SMALL = ModelConfig("small", "layer2", grid=4, dim=16, garment_nuance=24)
MODELS = {
    "resnet18": (ModelConfig("resnet18", "layer2", grid=4, dim=16, garment_nuance=24), 32),
    "resnet50v2": (ModelConfig("resnet50v2", "layer2", grid=2, dim=16, garment_nuance=24), 32),
    "uneven cells": (ModelConfig("small", "layer3", grid=7, dim=16, nuance=0), 72),  # 9 -> 7
    "upwards": (ModelConfig("small", "layer3", grid=7, dim=16, garment_nuance=0), 64),  # 4 -> 7
} | {
    name: (dataclasses.replace(SMALL, **options), 32)
    for name, options in VARIANTS.items()
    if "architecture" not in options
}
BACKBONES = ["resnet18", "without-lower-stages"]


def pixels_of(count: int, size: int) -> np.ndarray:
    """Noise, and a plain ground, where a deviation is rounding errors alone."""
    generator = np.random.default_rng(count)
    pixels = generator.integers(0, 256, (count, 3, size, size)).astype(np.uint8)
    pixels[0] = 250
    return pixels


def lively(name: str, folder: Path) -> Checkpoint:
    """A random model whose batch norms, those of the stages' scales among them, have seen images,
    so that mode mistakes show; its preprocessing is not the default."""
    config, size = MODELS[name]
    shown = Preprocessing(size, mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, config)
    images = normalise(torch.from_numpy(pixels_of(40, size)), shown)
    with torch.no_grad():
        model.features(images)
        if model.eval().garment_nuance.numbers:
            standard = model.standardise(model.trunk(images))
            model.garment_nuance.fit(model.garment_nuance.statistics(standard))
    save_checkpoint(folder, model, shown, (), {"dataset": "noise"})
    return load_checkpoint(folder)


@torch.inference_mode()
def by_torch(checkpoint: Checkpoint, pixels: np.ndarray, conditions: torch.Tensor) -> list:
    model = checkpoint.model
    images = normalise(torch.from_numpy(pixels), checkpoint.preprocessing)
    chances, nuance = model.describe(model.trunk(images))
    maps = model.features(images)
    seen = [model.attention(maps, condition.unsqueeze(0)) for condition in conditions]
    return [chances, nuance, torch.stack(seen, 1)]


def by_onnx(checkpoint: Checkpoint, name: str, pixels, conditions) -> list:
    session = onnxruntime.InferenceSession(checkpoint.folder / name)
    found = session.run(OUTPUTS, {"images": pixels, "conditions": conditions.numpy()})
    return [torch.from_numpy(one) for one in found]


OPERATIONS = {"resnet18": (1, 4), "resnet50v2": (1, 7), "m2fashion": (0, 0)}
"""Maximum poolings and residual blocks of each network."""


def check_int8(name: str, checkpoint: Checkpoint, parity: Parity, pixels: np.ndarray) -> None:
    """It is close, and int8 throughout, as ONNX Runtime fused it: no convolution, maximum or sum
    of the backbone is left in float32."""
    folder, backbone = checkpoint.folder, checkpoint.model.backbone
    shown, types = pixels[-parity.images :], checkpoint.model.type_conditions
    right = by_torch(checkpoint, shown, types)
    for file, told in ((ONNX, parity.float32), (ONNX_INT8, parity.int8)):
        chances, nuance, _ = by_onnx(checkpoint, file, shown, types)
        error = (chances - right[0]).abs()
        assert told.chances_largest == pytest.approx(float(error.max()), abs=1e-5)
        assert told.chances_mean == pytest.approx(float(error.mean()), abs=1e-5)
        groups = [size for _, size in checkpoint.model.layout.groups]
        pairs = zip(nuance.split(groups, 1), right[1].split(groups, 1), strict=True)
        least = min(float((a * b).sum(1).min()) for a, b in pairs)
        assert told.nuance_least == pytest.approx(least, abs=1e-5)
        assert f"- {file}: {told.told}\n" in (folder / "README.md").read_text()
    assert 1e-6 < parity.int8.chances_largest < 0.05
    assert parity.int8.nuance_least > 0.9

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folder / ONNX_INT8, options)
    fused = onnx.load(folder / "fused.onnx")
    counts = Counter(node.op_type for node in fused.graph.node)
    pools, blocks = OPERATIONS[name]
    assert counts["QLinearConv"] == sum(isinstance(m, nn.Conv2d) for m in backbone.modules())
    assert counts["QLinearAdd"] == blocks
    assert counts["Conv"] == 2  # the reduction and the keys
    assert counts["NhwcMaxPool"] + counts["MaxPool"] == pools
    makers = {name: node for node in fused.graph.node for name in node.output}
    for node in fused.graph.node:
        if "MaxPool" in node.op_type:
            assert makers[node.input[0]].op_type == "QLinearConv"


@pytest.mark.parametrize("name", MODELS)
def test_equals_torch_for_all_numbers_of_images_and_conditions(
    name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture
) -> None:
    checkpoint = lively(name, tmp_path)
    size = checkpoint.preprocessing.size
    parity = export_checkpoint(checkpoint, pixels_of(30, size))
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    assert parity.images == 10
    for images in (1, 3, 7):
        for conditions in (CONDITIONS[1:2], CONDITIONS, CONDITIONS[:0]):
            pixels = pixels_of(images, size)
            found = by_onnx(checkpoint, ONNX, pixels, conditions)
            if len(conditions):
                right = by_torch(checkpoint, pixels, conditions)
                torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
            assert found[1].shape == (images, checkpoint.model.layout.nuance)
            assert found[2].shape == (images, len(conditions), *checkpoint.model.grid)
            rough = by_onnx(checkpoint, ONNX_INT8, pixels, conditions)
            assert [one.shape for one in rough] == [one.shape for one in found]
            torch.testing.assert_close(found[2].sum((2, 3)), torch.ones(images, len(conditions)))
    if name in OPERATIONS:
        check_int8(name, checkpoint, parity, pixels_of(30, size))


def test_a_file_says_what_it_is_of(tmp_path: Path) -> None:
    checkpoint = lively("without-nuance", tmp_path)
    export_checkpoint(checkpoint, pixels_of(3, 32))
    for name in (ONNX, ONNX_INT8):
        session = onnxruntime.InferenceSession(tmp_path / name)
        told = session.get_modelmeta().custom_metadata_map
        assert told[CHECKPOINT_KEY] == load_checkpoint(tmp_path).hash
        assert told[PREPROCESSING_KEY] == checkpoint.preprocessing.hash
        assert told[SCHEMA_KEY] == SCHEMA.hash
        content = (tmp_path / name).read_bytes()
        assert str(Path(training.__file__).parent).encode() not in content


@pytest.mark.parametrize("name", BACKBONES)
def test_only_the_backbone_is_quantised(name: str, tmp_path: Path) -> None:
    checkpoint = lively(name, tmp_path)
    network = checkpoint.model
    model = exported(network, checkpoint.preprocessing)
    own = [node for node in quantised_nodes(model.graph) if node.op_type == "Conv"]
    names = [node.name for node in own]
    assert len(names) == sum(isinstance(m, nn.Conv2d) for m in network.backbone.modules())
    everything = [node.name for node in model.graph.node if node.op_type == "Conv"]
    others = sorted(set(everything) - set(names))
    assert others == ["/key/Conv", "/reduce/Conv"]
    before = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    float_weights = {node.output[0]: before[node.input[1]] for node in own}
    model = quantise_backbone(model, ((-1.0, 2.0),) * len(quantised_tensors(model.graph)))
    onnx.checker.check_model(model, full_check=True)
    after = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.output[0] in float_weights:
            made = makers[node.input[1]]
            values, steps = after[made.input[0]], after[made.input[1]]
            assert values.dtype == np.int8
            assert np.abs(values.astype(int)).max(axis=(1, 2, 3)).tolist() == [64] * len(values)
            error = values * steps.reshape(-1, 1, 1, 1) - float_weights[node.output[0]]
            assert (np.abs(error).max(axis=(1, 2, 3)) <= steps * 0.501).all()


def test_equal_constants_are_written_once(tmp_path: Path) -> None:
    """The exporter then puts a node in the place of the second."""
    checkpoint = lively("resnet18", tmp_path)
    block = checkpoint.model.backbone.layer1[0]
    for ours, other in ((block.conv2, block.conv1), (block.bn2, block.bn1)):
        ours.load_state_dict(other.state_dict())
    assert export_checkpoint(checkpoint, pixels_of(30, 32)).int8.nuance_least > 0.9


def test_ranges_are_those_of_the_activations(tmp_path: Path) -> None:
    checkpoint = lively("resnet18", tmp_path)
    pixels, model = pixels_of(12, 32), checkpoint.model
    ranges = measured_ranges(exported(model, checkpoint.preprocessing), pixels)
    images = normalise(torch.from_numpy(pixels), checkpoint.preprocessing)
    first = model.backbone.bn1(model.backbone.conv1(images))
    assert ranges[0] == pytest.approx((float(images.min()), float(images.max())), rel=1e-5)
    assert ranges[1] == pytest.approx((float(first.min()), float(first.max())), rel=1e-5)
    assert ranges[2] == pytest.approx((0, float(first.max())), rel=1e-5)


def test_results_that_are_not_those_of_torch_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = lively("gmp", tmp_path)
    count = len(quantised_tensors(exported(checkpoint.model, checkpoint.preprocessing).graph))
    with monkeypatch.context() as patch:
        patch.setattr(export, "measured_ranges", lambda *_: ((0.0, 1e4),) * count)
        assert export_checkpoint(checkpoint, pixels_of(6, 32)).int8 is None
    assert "int8 ruins it" in (tmp_path / "README.md").read_text()
    assert (tmp_path / ONNX).is_file()
    assert not (tmp_path / ONNX_INT8).exists()
    (tmp_path / ONNX).unlink()
    other = lively("m2fashion", tmp_path / "other")
    real = exported
    monkeypatch.setattr(export, "exported", lambda _, shown: real(other.model, shown))
    with pytest.raises(ResourceError, match=r"model.onnx would give other chances than torch"):
        export_checkpoint(checkpoint, pixels_of(6, 32))
    assert not (tmp_path / ONNX).exists()


def test_an_operation_that_onnx_has_not_is_named(tmp_path: Path) -> None:
    class Turned(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft2(maps).real

    checkpoint = lively("without-lower-stages", tmp_path)
    checkpoint.model.standardise = Turned()
    with pytest.raises(ResourceError, match=r"cannot be exported to ONNX \(.*fft"):
        export_checkpoint(checkpoint, pixels_of(3, 32))


def test_the_sample_is_the_same_and_readable(tmp_path: Path) -> None:
    root = write_tiny_catalogue(tmp_path / "shapes", 100)
    paths = [f"images/{number:03d}.png" for number in range(100)]
    for path in paths[:8]:
        (root / path).write_bytes(b"no image")
    shown = Preprocessing(16)
    found = sample_pictures(root, paths, shown)
    assert found.shape == (92, 3, 16, 16)
    assert found.dtype == np.uint8
    more = [*paths, *paths[8:20]]
    again = sample_pictures(root, more, shown)
    assert again.shape == (96, 3, 16, 16)
    assert np.array_equal(again, sample_pictures(root, more, shown))
    with pytest.raises(DataError, match="none of the 8 images"):
        sample_pictures(root, paths[:8], shown)


CONFIG = RunConfig(
    dataclasses.replace(SMALL, garment_nuance=8),
    Recipe(epochs=2, batch_size=20, freeze="none", precision="float32"),
    Preprocessing(size=32),
)


@pytest.mark.parametrize("freeze", ["none", "stem"])
def test_training_exports_its_best_epoch_and_nothing_stale_stays(
    tmp_path: Path, freeze: Freeze
) -> None:
    root = write_tiny_catalogue(tmp_path / "shapes", 60)
    (root / "images/005.png").write_bytes(b"not a picture")
    dataset, out = load_dataset(str(root)), tmp_path / "run"
    config = dataclasses.replace(CONFIG, recipe=dataclasses.replace(CONFIG.recipe, freeze=freeze))
    report = run_training(dataset, config, out)
    assert report.export.images == 13  # of the 39 readable ones of 40
    found = load_checkpoint(out)
    pixels = sample_pictures(root, dataset.paths[:40], CONFIG.preprocessing)[:5]
    condition = torch.from_numpy(dataset.schema.type_condition(0))[None].float()
    ours = by_onnx(found, ONNX, pixels, condition)
    torch.testing.assert_close(ours, by_torch(found, pixels, condition), rtol=1e-4, atol=1e-4)

    files = {name: (out / "best" / name).read_bytes() for name in (ONNX, ONNX_INT8)}
    (out / "best" / ONNX).unlink()
    again = run_training(dataset, config, out, Setting(resume=True))
    assert again.export == report.export
    assert {name: (out / "best" / name).read_bytes() for name in files} == files

    save_checkpoint(out / "best", found.model, found.preprocessing, found.categories, {})
    assert sorted(path.name for path in (out / "best").iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "schema.json")
    ]
    assert "onnx" not in (out / "best" / "README.md").read_text()


def test_a_rival_is_not_exported(tmp_path: Path) -> None:
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 60)))
    config = dataclasses.replace(CONFIG, model=variant("csn", CONFIG.model))
    assert run_training(dataset, config, tmp_path / "run").export is None
    found = load_checkpoint(tmp_path / "run")
    assert export_checkpoint(found, pixels_of(3, 32)) is None
    assert not list(tmp_path.rglob("*.onnx"))


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_what_is_missing_is_said_before_the_first_epoch(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 60)))
    with pytest.raises(ResourceError) as raised:
        run_training(dataset, CONFIG, tmp_path / "run")
    assert raised.value.exit_code == 6
    assert 'pip install "m2fashion-retrieval[train]"' in str(raised.value)
    assert not (tmp_path / "run").exists()
