"""Small parts of the store: int8 maps, path lists, flat files, the faiss check."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from indexer import faiss_module
from indexer.device import choose_device
from indexer.flat_file import FlatFileWriter
from indexer.path_list import PathList
from indexer.quantise import QuantisedMaps, dequantise, dequantise_numpy, quantise
from training.errors import ResourceError, UsageError


def test_quantised_rows_keep_their_direction() -> None:
    torch.manual_seed(0)
    # Locations of very different loudness, as background and garment are.
    maps = torch.randn(16, 512, 7, 7) * torch.logspace(-4, 2, 49).view(1, 1, 7, 7)
    stored = quantise(maps)
    assert stored.values.shape == (16, 49, 512)
    assert stored.values.dtype == np.int8
    restored = dequantise(stored, (7, 7))
    assert torch.nn.functional.cosine_similarity(restored, maps, dim=1).min() > 0.9999
    assert restored.is_contiguous(memory_format=torch.channels_last)
    rows = maps.flatten(2).transpose(1, 2).numpy()
    by_hand = np.empty_like(rows)
    for image in range(16):
        for cell in range(49):
            scale = np.float32(np.abs(rows[image, cell]).max() / 127)
            by_hand[image, cell] = np.round(rows[image, cell] / scale) * scale
    np.testing.assert_allclose(dequantise_numpy(stored), by_hand, rtol=1e-5)
    np.testing.assert_array_equal(
        dequantise_numpy(stored), restored.flatten(2).transpose(1, 2).numpy()
    )


def test_zero_and_infinite_maps() -> None:
    zeros = quantise(torch.zeros(2, 4, 1, 3))
    assert not dequantise(zeros, (1, 3)).any()
    assert not np.isfinite(quantise(torch.full((1, 2, 1, 1), float("nan"))).scales).all()
    assert dequantise(
        QuantisedMaps(np.zeros((0, 6, 4), np.int8), np.zeros((0, 6), np.float32)), (2, 3)
    ).shape == (0, 4, 2, 3)


def test_path_lists_slice_like_lists() -> None:
    names = ["a", "", "日本", "b\udcff", "c"]
    found = PathList.of(names)
    assert list(found) == names
    assert found[1:4] == names[1:4]
    assert found[-1] == "c"
    assert list(PathList.of([])) == []
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize(("rows", "dim"), [(0, 4), (1, 1), (1000, 37), (257, 512)])
def test_flat_files_are_what_faiss_writes(tmp_path: Path, rows: int, dim: int) -> None:
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    index = faiss.IndexFlatIP(dim)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "theirs"))
    with FlatFileWriter(tmp_path / "ours", rows, dim) as writer:
        for start in range(0, rows, 100):
            writer.append(vectors[start : start + 100])
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_faiss_is_there_once() -> None:
    assert faiss_module.load_faiss().IndexFlatIP is faiss.IndexFlatIP
    names = ["numpy", "faiss-cpu", "Faiss_GPU", "faiss-gpu-cuvs", "faissy"]
    found = faiss_module.faiss_distributions(names)
    assert found == ["faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs"]


def test_two_or_no_faiss_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = faiss_module.load_faiss.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(faiss_module, "faiss_distributions", lambda names: ["faiss-cpu", "faiss-gpu"])
        with pytest.raises(ResourceError, match="faiss-cpu and faiss-gpu are both installed"):
            load()

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(faiss_module, "faiss_distributions", lambda names: [])
    monkeypatch.setattr(faiss_module.importlib, "import_module", missing)
    with pytest.raises(ResourceError, match=r'pip install "m2fashion-retrieval\[cpu\]"'):
        load()


def test_devices() -> None:
    assert choose_device("cpu").device == "cpu"
    assert choose_device("auto").device == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto").remark
        with pytest.raises(ResourceError, match="no usable GPU"):
            choose_device("cuda")
