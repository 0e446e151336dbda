"""Encoding with the backbone in int8: close to float32, repeatable, and never mixed with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from test_onnx_runtime import MODELS, lively_model
from tiny_gallery import build, gallery, tiny_checkpoint, write_images
from torch import nn

from indexer.encode import forward as choose_forward
from indexer.encode import onnx as onnx_runtime
from indexer.encode.onnx import (
    calibration_images,
    export_onnx,
    exported_model,
    int8_ranges,
    onnx_forward,
    onnx_int8_forward,
    quantise_backbone,
    quantised_nodes,
    quantised_tensors,
)
from indexer.store.store import open_store
from training.errors import DataError, ResourceError
from training.images.preprocessing import Preprocessing


def images_of(size: int) -> torch.Tensor:
    return torch.randn(12, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2", "without-lower-stages"])
def test_only_the_backbone_is_quantised(name: str) -> None:
    config, size = MODELS[name]
    network = lively_model(config, size)
    model = onnx.load_from_string(export_onnx(network, size))
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


OPERATIONS = {"resnet18": (1, 4), "resnet50v2": (1, 7), "m2fashion": (0, 0)}
"""Maximum poolings and residual blocks of each network."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_backbone_stays_in_int8(name: str, tmp_path: Path) -> None:
    """As ONNX Runtime fused it: no convolution, maximum or sum of it is left in float32."""
    config, size = MODELS[name]
    network = lively_model(config, size)
    model = exported_model(network, size)
    convolutions = sum(node.op_type == "Conv" for node in quantised_nodes(model.graph))
    model = quantise_backbone(model, int8_ranges(model, images_of(size)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    serialised = model.SerializeToString()
    onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    fused = onnx.load(str(tmp_path / "fused.onnx"))
    counts = Counter(node.op_type for node in fused.graph.node)
    pools, blocks = OPERATIONS[name]
    assert counts["QLinearConv"] == convolutions
    assert counts["QLinearAdd"] == blocks
    assert counts["Conv"] == 2  # the reduction and the keys
    assert counts["NhwcMaxPool"] + counts["MaxPool"] == pools
    makers = {name: node for node in fused.graph.node for name in node.output}
    for node in fused.graph.node:
        if "MaxPool" in node.op_type:
            assert makers[node.input[0]].op_type == "QLinearConv"


@pytest.mark.parametrize("name", ["resnet18", "resnet50v2", "resnet18, uneven", "paper"])
def test_close_to_float32_for_every_batch_size(name: str) -> None:
    config, size = MODELS[name]
    model, images = lively_model(config, size), images_of(size)
    exported = exported_model(model, size)
    ranges = int8_ranges(exported, images)
    forward = onnx_int8_forward(model, exported, ranges, images)
    exact = onnx_forward(model, size)(images)
    whole = forward(images)
    for part in ("chances", "nuance") if model.layout.nuance else ("chances",):
        ours, right = getattr(whole, part), getattr(exact, part)
        assert torch.cosine_similarity(ours.flatten(1), right.flatten(1)).min() > 0.98
        assert not torch.allclose(ours, right, atol=1e-6)  # it is int8 indeed
        pieces = torch.cat([getattr(forward(piece), part) for piece in images.split(5)])
        torch.testing.assert_close(pieces, ours, rtol=1e-5, atol=1e-5)


def test_equal_constants_are_written_once() -> None:
    """The exporter then puts a node in the place of the second."""
    config, size = MODELS["resnet18"]
    model, images = lively_model(config, size), images_of(size)
    block = model.backbone.layer1[0]
    for ours, other in ((block.conv2, block.conv1), (block.bn2, block.bn1)):
        ours.load_state_dict(other.state_dict())
    exported = exported_model(model, size)
    ranges = int8_ranges(exported, images)
    found = onnx_int8_forward(model, exported, ranges, images)(images)
    exact = onnx_forward(model, size)(images)
    alike = torch.cosine_similarity(found.chances, exact.chances)
    assert alike.min() > 0.98


def test_ranges_are_those_of_the_activations() -> None:
    config, size = MODELS["resnet18"]
    model, images = lively_model(config, size), images_of(size)
    exported = exported_model(model, size)
    ranges = int8_ranges(exported, images)
    assert ranges == int8_ranges(exported, images)
    first = model.backbone.bn1(model.backbone.conv1(images))
    assert ranges[0] == pytest.approx((float(images.min()), float(images.max())))
    assert ranges[1] == pytest.approx((float(first.min()), float(first.max())), rel=1e-5)
    assert ranges[2] == pytest.approx((0, float(first.max())), rel=1e-5)
    with pytest.raises(DataError, match="another network"):
        onnx_int8_forward(model, exported, ranges[1:], images)


def test_a_network_that_int8_ruins_is_refused() -> None:
    config, size = MODELS["resnet18"]
    model, images = lively_model(config, size), images_of(size)
    exported = exported_model(model, size)
    ranges = tuple((0.0, 1e4) for _ in int8_ranges(exported, images))
    with pytest.raises(ResourceError, match=r"other (chances|nuance) than torch \(by"):
        onnx_int8_forward(model, exported, ranges, images)


def test_precisions_never_mix(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 20)
    checkpoint = tiny_checkpoint(tmp_path / "run")
    first, more = gallery(tmp_path, paths[:8]), gallery(tmp_path, paths)
    out = tmp_path / "out"
    assert build(first, checkpoint, out, runtime="onnx").encoded == 8
    report = build(more, checkpoint, out, runtime="onnx-int8")
    assert (report.runtime, report.encoded, report.kept) == ("onnx-int8", 20, 0)
    manifest = open_store(out).manifest
    assert manifest.identity.precision == "int8"
    assert len(manifest.int8_ranges) == 2
    assert build(more, checkpoint, out, runtime="torch").encoded == 20
    assert open_store(out).manifest.int8_ranges == ()


def test_a_grown_index_keeps_its_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path, 20)
    checkpoint = tiny_checkpoint(tmp_path / "run")
    out = tmp_path / "out"
    build(gallery(tmp_path, paths[:8]), checkpoint, out, runtime="onnx-int8")
    before = open_store(out)
    report = build(gallery(tmp_path, paths), checkpoint, out, runtime="onnx-int8")
    assert (report.encoded, report.kept) == (12, 8)
    after = open_store(out)
    assert after.manifest.int8_ranges == before.manifest.int8_ranges
    assert after.manifest.shards[0].file == before.manifest.shards[0].file

    calls = []
    real = onnx_runtime.int8_ranges
    monkeypatch.setattr(choose_forward, "int8_ranges", lambda *a: calls.append(1) or real(*a))
    again = build(gallery(tmp_path, paths[:8]), checkpoint, tmp_path / "again", runtime="onnx-int8")
    assert again.encoded == 8
    assert calls == [1]
    repeated = open_store(tmp_path / "again").manifest
    assert repeated.int8_ranges == before.manifest.int8_ranges
    assert repeated.shards[0].file == before.manifest.shards[0].file


def test_the_sample_is_the_same_and_readable(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 30)
    (tmp_path / paths[4]).write_text("no image")
    preprocessing = Preprocessing(size=16)
    sample = calibration_images(tmp_path, paths, preprocessing, 7)
    assert sample.shape == (7, 3, 16, 16)
    assert torch.equal(sample, calibration_images(tmp_path, paths, preprocessing, 7))
    assert len(calibration_images(tmp_path, paths, preprocessing)) == 29
    with pytest.raises(DataError, match="none of the 1 images"):
        calibration_images(tmp_path, [paths[4]], preprocessing)
