"""Finding a dataset by name or folder, and choosing its attributes."""

import json
from pathlib import Path

import pytest

from training.datasets import ADAPTERS, detect, load_dataset
from training.datasets.labels import SOURCES, find_root
from training.errors import DataError, UsageError

LABELS = "image,split,colour,neck,name\na.jpg,train,red,v,A\nb.jpg,test,blue,round,B\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETRIEVE_DATA", raising=False)
    return tmp_path


def catalogue_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "labels.csv").write_text(LABELS)
    return folder


def asen_at(folder: Path, path: str) -> Path:
    folder.mkdir(parents=True)
    meta = {"ATTRIBUTES": ["a", "b"], "ATTRIBUTES_NUM": {"a": 2, "b": 3}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "filenames_test.txt").write_text(f"{path}\n{path}\n")
    (folder / "query_test.txt").write_text("0 0 1\n0 1 2\n")
    (folder / "candidate_test.txt").write_text("1 1 0\n")
    return folder


def test_every_adapter_has_a_source() -> None:
    assert set(ADAPTERS) == set(SOURCES)


def test_root_then_variable_then_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"'darn' is not here: looked for data/darn\. .*filenames"):
        find_root("darn")
    (here / "data" / "DARN").mkdir(parents=True)
    assert find_root("darn") == Path("data/DARN")
    (here / "data" / "darn").mkdir()
    assert find_root("darn") == Path("data/darn")
    (here / "elsewhere").mkdir()
    monkeypatch.setenv("RETRIEVE_DATA", str(here / "elsewhere"))
    assert find_root("darn") == Path("data/darn")
    (here / "elsewhere" / "darn").mkdir()
    assert find_root("darn") == here / "elsewhere" / "darn"
    assert find_root("darn", here / "data") == here / "data"
    with pytest.raises(DataError, match=r"nowhere is not a folder; expected files"):
        find_root("darn", here / "nowhere")


def test_names_and_folders(here: Path) -> None:
    folder = catalogue_at(here / "shop")
    assert load_dataset("shop").name == "shop"
    assert load_dataset("Catalogue", root=folder).name == "shop"
    with pytest.raises(UsageError, match=r"unknown dataset 'fashion': .* nearest: fashionai"):
        load_dataset("fashion")
    with pytest.raises(UsageError, match="unknown dataset ''"):
        load_dataset("")
    with pytest.raises(UsageError, match="is a folder already; leave --root"):
        load_dataset("shop", root=folder)


def test_folders_are_told_by_their_files(here: Path) -> None:
    assert detect(catalogue_at(here / "a")) == "catalogue"
    assert detect(asen_at(here / "b", "pic/1/1_1_1.jpg")) == "darn"
    assert detect(asen_at(here / "c", "img/x.jpg")) == "deepfashion"
    assert detect(asen_at(here / "FashionAI", "x.jpg")) == "fashionai"
    (here / "d" / "Anno").mkdir(parents=True)
    (here / "d" / "Anno" / "list_attr_cloth.txt").touch()
    assert detect(here / "d") == "deepfashion"
    (here / "e" / "Annotations").mkdir(parents=True)
    (here / "e" / "Annotations" / "label.csv").touch()
    assert detect(here / "e") == "fashionai"
    (here / "f").mkdir()
    with pytest.raises(DataError, match=r"no dataset that an adapter reads.*labels.csv"):
        detect(here / "f")
    with pytest.raises(DataError, match="no dataset that an adapter reads"):
        detect(asen_at(here / "g", "x.jpg"))


def test_attributes_are_chosen_and_renumbered(here: Path) -> None:
    chosen = load_dataset(str(catalogue_at(here / "shop")), attributes=["neck", "name"])
    assert [a.name for a in chosen.schema.attributes] == ["neck", "name"]
    dataset = load_dataset("darn", asen_at(here / "x", "pic/1/1_1_1.jpg"), attributes=["B"])
    assert [a.name for a in dataset.schema.attributes] == ["b"]
    assert dataset.labels.tolist() == [[-1, -1, 1], [1, -1, -1]]
    queries = dataset.protocols["test"].queries
    assert (queries.rows.tolist(), queries.attributes.tolist()) == ([0], [0])
    with pytest.raises(UsageError, match="unknown attribute 'c'"):
        load_dataset("darn", here / "x", attributes=["c"])
