"""Small parts of the index: path lists, payload, the faiss check, devices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from indexer.search import lists as faiss_module
from indexer.store.gallery import Column, Labels, PathList, pack_payload, unpack_payload
from training.device import choose_device
from training.errors import ResourceError, UsageError


def test_path_lists_slice_like_lists() -> None:
    names = ["a", "", "日本", "b\udcff", "c"]
    found = PathList.of(names)
    assert list(found) == names
    assert found[1:4] == names[1:4]
    assert found[-1] == "c"
    assert list(PathList.of([])) == []
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize("rows", [0, 1, 4, 31])
def test_label_states_take_two_bits_and_come_back(rows: int) -> None:
    states = np.random.default_rng(rows).integers(-1, 2, (rows, 7)).astype(np.int8)
    labels = Labels.of(states)
    assert labels.packed.nbytes == 7 * -(-rows // 4)
    np.testing.assert_array_equal(labels.of_values([5, 0]), states[:, [5, 0]])
    some = np.arange(rows, dtype=np.int64)[::-3]
    np.testing.assert_array_equal(labels.of_rows(some), states[some])


def test_payload_is_found_by_text_and_by_number() -> None:
    columns = {
        "brand": ["Acme", "acme", "", "日本", "Acme "],
        "price": ["5", "5.0", "", "-1e2", "12"],
    }
    found = unpack_payload(pack_payload(columns))
    assert {name: list(column.cells) for name, column in found.items()} == columns
    brand, price = found["brand"], found["price"]
    for text in ("Acme", "日本", "", "nobody"):
        assert brand.equal(text).tolist() == [cell == text for cell in columns["brand"]]
    assert price.equal("5").tolist() == [True, True, False, False, False]
    assert price.equal("").tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(price.numbers(), [5, 5, np.nan, -100, 12])
    for cells in (["5", "cheap"], ["", ""], ["nan", "1"], ["1_0"], ["0x1"]):
        column = Column("c", PathList.of(cells))
        assert not column.numeric
        with pytest.raises(ValueError, match="'c'"):
            column.numbers()
    assert unpack_payload(pack_payload({})) == {}


def test_faiss_is_there_once() -> None:
    assert faiss_module.load_faiss().IndexFlatIP is faiss.IndexFlatIP
    assert faiss_module.faiss_distributions() == ["faiss-cpu"]


def test_two_or_no_faiss_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = faiss_module.load_faiss.__wrapped__
    for name in ("faiss_cpu-1.12.0", "faiss_gpu_cuvs-1.9", "faissy", "numpy-2.0"):
        (tmp_path / f"{name}.dist-info").mkdir()
    there = SimpleNamespace(origin=str(tmp_path / "faiss/__init__.py"))
    with monkeypatch.context() as patch:
        patch.setattr(faiss_module.importlib.util, "find_spec", lambda name: there)
        with pytest.raises(ResourceError, match="faiss-cpu and faiss-gpu-cuvs are both installed"):
            load()

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(faiss_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(faiss_module.importlib, "import_module", missing)
    with pytest.raises(ResourceError, match=r"faiss is missing; pip install faiss-cpu"):
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
