"""Encoding by ONNX Runtime, from what training exported: no torch, and what torch gives."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_gallery import SCHEMA, build, gallery, write_images

from indexer.build.edit import add_images
from indexer.encode import forward as choosing
from indexer.encode.encode import BatchEncoder, encode
from indexer.encode.forward import choose_forward, choose_runtime
from indexer.encode.onnx import open_onnx
from indexer.store.store import open_store
from training.checkpoint import ONNX, ONNX_INT8, Checkpoint, load_checkpoint, save_checkpoint
from training.errors import DataError, ResourceError, UsageError
from training.export import export_checkpoint
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion

SMALL = ModelConfig("small", "layer2", grid=2, dim=16, nuance=2, garment_nuance=4)
SHOWN = Preprocessing(size=32)


def lively_model(config: ModelConfig, size: int, seed: int = 0) -> M2Fashion:
    """A random model whose batch norms, those of the stages' scales among them, have seen images,
    so that mode mistakes show."""
    torch.manual_seed(seed)
    model = M2Fashion(SCHEMA, config)
    with torch.no_grad():
        model.features(torch.randn(8, 3, size, size) * 2 + 0.5)
    return model.eval().requires_grad_(False)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def saved(folder: Path, seed: int = 0, **options: object) -> Checkpoint:
    """A checkpoint, exported."""
    config = dataclasses.replace(SMALL, **options)
    save_checkpoint(folder, lively_model(config, 32, seed), SHOWN, (), {})
    checkpoint = load_checkpoint(folder)
    export_checkpoint(checkpoint, noise(12))
    return checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return saved(tmp_path_factory.mktemp("run"))


def test_it_gives_what_torch_gives(checkpoint: Checkpoint) -> None:
    pixels, layout = noise(13), checkpoint.layout
    packed = {}
    for runtime, precision in (("torch", "float32"), ("onnx", "float32"), ("onnx-int8", "int8")):
        found = encode(choose_forward(checkpoint, runtime, precision, "cpu"), pixels)
        assert found.chances.shape == (13, SCHEMA.size)
        packed[runtime] = layout.pack(found.chances, found.nuance).astype(int)
    assert np.abs(packed["onnx"] - packed["torch"]).max() <= 1
    assert np.abs(packed["onnx-int8"] - packed["torch"]).max() > 1
    assert np.abs(packed["onnx-int8"] - packed["torch"]).mean() < 8


def test_attention_is_that_of_the_model(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / ONNX
    conditions = [SCHEMA.condition(present=["v"]), SCHEMA.condition(types=["pattern"])]
    found = open_onnx(path.read_bytes(), str(path)).attention(noise(1)[0], conditions)
    assert found.shape == (2, 2, 2)
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_an_index_by_either_runtime_is_one_index(tmp_path: Path, checkpoint: Checkpoint) -> None:
    paths = write_images(tmp_path, 20)
    first, more = gallery(tmp_path, paths[:8]), gallery(tmp_path, paths)
    stores = {}
    for name in ("torch", "auto"):
        report = build(more, checkpoint, tmp_path / name, runtime=name)
        assert (report.runtime, report.encoded) == ({"auto": "onnx"}.get(name, name), 20)
        stores[name] = open_store(tmp_path / name)
    assert stores["torch"].manifest.identity == stores["auto"].manifest.identity
    assert build(first, checkpoint, tmp_path / "mixed", runtime="torch").encoded == 8
    report = build(more, checkpoint, tmp_path / "mixed", runtime="onnx")
    assert (report.encoded, report.kept) == (12, 8)
    stores["mixed"] = open_store(tmp_path / "mixed")
    right = stores["torch"].descriptors().astype(int)
    for name in ("auto", "mixed"):
        assert np.abs(stores[name].descriptors() - right).max() <= 1


def test_precisions_never_mix(tmp_path: Path, checkpoint: Checkpoint) -> None:
    paths, out = write_images(tmp_path, 20), tmp_path / "out"
    first, more = gallery(tmp_path, paths[:8]), gallery(tmp_path, paths)
    assert build(first, checkpoint, out, runtime="onnx").encoded == 8
    report = build(more, checkpoint, out, runtime="onnx-int8")
    assert (report.runtime, report.encoded, report.kept) == ("onnx-int8", 20, 0)
    assert open_store(out).manifest.identity.precision == "int8"
    again = build(first, checkpoint, tmp_path / "again", runtime="onnx-int8")
    assert again.encoded == 8
    add_images(tmp_path / "again", paths[8:])  # in int8 too
    added, built = open_store(tmp_path / "again"), open_store(out)
    assert np.array_equal(added.descriptors(), built.descriptors())
    assert build(more, checkpoint, out, runtime="onnx").encoded == 20


def test_a_model_that_was_not_exported_is_exported_by_the_build(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", lively_model(SMALL, 32), SHOWN, (), {})
    loaded = load_checkpoint(tmp_path / "run")
    dataset = gallery(tmp_path, write_images(tmp_path, 4))
    assert build(dataset, loaded, tmp_path / "out", runtime="auto").runtime == "onnx"
    store = open_store(tmp_path / "out")
    assert store.read_model(ONNX) == (tmp_path / "run" / ONNX).read_bytes()
    assert store.read_model(ONNX_INT8)


def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 4))
    loaded = saved(tmp_path / "run")
    other = saved(tmp_path / "other", seed=1)
    whole = (loaded.folder / ONNX).read_bytes()
    for content, message in (
        ((other.folder / ONNX).read_bytes(), "exported from other weights"),
        (whole[: len(whole) // 2], "cannot be read by onnxruntime"),
        (b"", "cannot be read by onnxruntime"),
    ):
        (loaded.folder / ONNX).write_bytes(content)
        with pytest.raises(DataError, match=message):
            build(dataset, loaded, tmp_path / "out", runtime="onnx")


def test_a_batch_that_does_not_fit_is_halved(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(onnxruntime.InferenceSession):
        def run(self, names, feeds):
            if len(feeds["images"]) > 3:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 9")
            return super().run(names, feeds)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Small)
    monkeypatch.setattr("indexer.encode.encode.threads", lambda: 1)
    said: list[str] = []
    encoder = BatchEncoder(choose_forward(checkpoint, "onnx", "float32", "cpu"), said.append)
    pixels = noise(8)
    results = encoder.results(pixels, encoder.start(pixels))
    assert [len(result.chances) for result in results] == [2, 2, 2, 2]
    assert said[-1] == "out of memory on cpu: going on with 2 at a time"


def test_without_onnxruntime(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ResourceError, match="pip install onnxruntime"):
        choose_forward(checkpoint, "onnx", "float32", "cpu")


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["h5py"] = sys.modules["onnx"] = None  # each import of it fails
from retrieval import Engine, Request
from retrieval.sheet import contact_sheet, explain
engine = Engine.open(sys.argv[1])
picture = sys.argv[2]
request = Request(picture, present=["floral"], absent=["v"])
result = engine.query(request)
assert len(explain(engine, request, result).seen) == 1 + len(result.hits)
contact_sheet(result, Path(picture))
print(len(result.hits), *[name for name in sys.modules if name.split(".")[0] == "torchvision"])
"""


def test_a_query_needs_no_torch(tmp_path: Path, checkpoint: Checkpoint) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 6))
    build(dataset, checkpoint, tmp_path / "out", runtime="onnx")
    words = [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "out", tmp_path / dataset.paths[0]]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("5\n", 0), done.stderr


def test_a_build_and_its_edits_need_no_torch(tmp_path: Path, checkpoint: Checkpoint) -> None:
    paths = write_images(tmp_path, 9)
    lines = "".join(f"{path},v\n" for path in paths[:8])
    (tmp_path / "labels.csv").write_text("image,neck\n" + lines)
    code = (
        "import sys; sys.modules['torch'] = None; from retrieval.cli import _run; "
        "sys.exit(_run(sys.argv[1:], True))"
    )
    out = tmp_path / "index"
    for words in (
        ("build-index", "--dataset", tmp_path, "--checkpoint", checkpoint.folder, "--out", out),
        ("add", out, paths[8]),
        ("remove", out, paths[0]),
        ("verify", out),
        ("--version",),
    ):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(open_store(out)) == 8


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "has_fast_bfloat16", lambda kind: True)
    for wanted, precision, device, chosen in (
        ("torch", "auto", "cpu", ("torch", "float32")),
        ("torch", "bfloat16", "cpu", ("torch", "bfloat16")),
        ("auto", "bfloat16", "cpu", ("torch", "bfloat16")),
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
    monkeypatch.setattr(choosing, "has_fast_bfloat16", lambda kind: False)
    assert choose_runtime("torch", "auto", "cuda") == ("torch", "float32")
