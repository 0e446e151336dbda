"""Keys change with whatever can change a figure, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tables import keys
from benchmarks.tables.keys import (
    Ground,
    config_hash,
    data_hash,
    evaluation_key,
    ground,
    training_key,
    weights_hash,
)
from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.recipe import Recipe
from training.run import RunConfig
from training.schema import Attribute, Schema

GROUND = Ground("d", "w", "t", "e")
CONFIG = RunConfig(weights="a.safetensors")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "b.png").write_bytes(b"123")
    return Dataset(
        name="shop",
        root=tmp_path,
        schema=Schema((Attribute("colour", ("red", "blue")),)),
        paths=["a.png", "b.png"],
        labels=np.array([[1, -1], [-1, 1]], dtype=np.int8),
        category=np.array([0, 1]),
        category_names=("shirt", "dress"),
        splits=np.array(["train", "test"]),
    )


def test_fault_35_a_training_key_changes_with_every_option_and_every_ground() -> None:
    configs = [
        CONFIG,
        replace(CONFIG, seed=1),
        replace(CONFIG, model=ModelConfig(dim=64)),
        replace(CONFIG, recipe=Recipe(margin=0.3)),
        replace(CONFIG, preprocessing=Preprocessing(size=64)),
    ]
    grounds = [replace(GROUND, **{name: "x"}) for name in ("data", "weights", "training_code")]
    found = [training_key(config, GROUND) for config in configs]
    found += [training_key(CONFIG, other) for other in grounds]
    assert len(set(found)) == len(found)


def test_a_training_key_does_not_change_with_the_evaluation_or_where_weights_lie() -> None:
    key = training_key(CONFIG, GROUND)
    assert training_key(CONFIG, replace(GROUND, evaluation_code="x")) == key
    assert training_key(replace(CONFIG, weights="elsewhere/a.safetensors"), GROUND) == key
    assert config_hash(replace(CONFIG, weights=None)) == config_hash(CONFIG)


def test_an_evaluation_key_changes_with_the_training_the_code_and_the_way() -> None:
    found = [
        evaluation_key(CONFIG, GROUND, "engine"),
        evaluation_key(CONFIG, GROUND, "likeness"),
        evaluation_key(CONFIG, replace(GROUND, evaluation_code="x"), "engine"),
        evaluation_key(CONFIG, replace(GROUND, training_code="x"), "engine"),
        evaluation_key(replace(CONFIG, seed=1), GROUND, "engine"),
    ]
    assert len(set(found)) == len(found)


def test_the_data_hash_sees_labels_splits_lists_paths_and_sizes(dataset: Dataset) -> None:
    entries = RetrievalList(np.array([1]), np.array([0]), np.array([1]))
    (dataset.root / "c.png").write_bytes(b"12345")
    others = [
        replace(dataset, labels=np.array([[1, -1], [-1, 0]], dtype=np.int8)),
        replace(dataset, category=np.array([0, 0])),
        replace(dataset, category_names=("shirt", "skirt")),
        replace(dataset, splits=np.array(["train", "valid"])),
        replace(dataset, paths=["c.png", "b.png"]),
        replace(dataset, schema=Schema((Attribute("colour", ("red", "green")),))),
        replace(dataset, protocols={"test": RetrievalProtocol(entries, entries)}),
    ]
    found = [data_hash(d) for d in (dataset, *others)]
    (dataset.root / "b.png").write_bytes(b"another picture")
    found.append(data_hash(dataset))
    (dataset.root / "b.png").unlink()
    found.append(data_hash(dataset))
    assert len(set(found)) == len(found)


def test_items_count_as_data_that_models_are_trained_on(dataset: Dataset) -> None:
    found = [
        ground(replace(dataset, items=items), None).data
        for items in (None, np.array([0, 1]), np.array([0, 0]))
    ]
    assert len(set(found)) == 3
    assert found[0] == data_hash(dataset)


def test_the_data_hash_does_not_see_the_folder_or_the_times(
    dataset: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in dataset.paths:
        (copy / name).write_bytes((dataset.root / name).read_bytes())
    moved = replace(dataset, root=copy, name="another", notes=("moved",))
    assert data_hash(moved) == data_hash(dataset)


def test_weights_count_by_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{name}.safetensors" for name in "abc")
    one.write_bytes(b"w")
    same.write_bytes(b"w")
    other.write_bytes(b"v")
    assert weights_hash(str(one)) == weights_hash(str(same)) != weights_hash(str(other))
    assert weights_hash(None) == "random"
    assert weights_hash("imagenet") == "imagenet"
    with pytest.raises(DataError, match=r"none\.safetensors does not exist"):
        weights_hash(str(tmp_path / "none.safetensors"))


def test_code_that_runs_counts_and_comments_do_not(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("training", "retrieval"):
        (tmp_path / room / "deep").mkdir(parents=True)
        (tmp_path / room / "deep" / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(keys, "ROOT", tmp_path)
    first = ground(dataset, None)
    (tmp_path / "training" / "deep" / "code.py").write_text('"""What."""\nx = 1  # why\n')
    assert ground(dataset, None) == first
    (tmp_path / "retrieval" / "deep" / "code.py").write_text("x = 2\n")
    other = ground(dataset, None)
    assert other.evaluation_code != first.evaluation_code
    assert other.training_code == first.training_code
    (tmp_path / "training" / "deep" / "code.py").write_text("x = 2\n")
    third = ground(dataset, None)
    assert third.training_code != other.training_code
    assert third.evaluation_code != other.evaluation_code
