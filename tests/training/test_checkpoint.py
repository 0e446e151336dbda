import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")), Attribute("fit", ("slim", "loose"))))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, M2Fashion]:
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, ModelConfig("resnet18", "layer1", 4, 16), categories=2).eval()
    folder = tmp_path_factory.mktemp("checkpoint") / "best"
    save_checkpoint(folder, model, Preprocessing(size=64), ("dress", "coat"), {"dataset": "tiny"})
    return folder, model


def _copy(saved: tuple[Path, M2Fashion], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "copy"))


def test_round_trip_gives_the_same_embeddings(saved: tuple[Path, M2Fashion]) -> None:
    loaded = load_checkpoint(saved[0])
    images = torch.randn(2, 3, 64, 64)
    condition = torch.from_numpy(SCHEMA.condition(["floral"], ["slim"])).float().unsqueeze(0)
    with torch.inference_mode():
        assert torch.equal(loaded.model(images, condition), saved[1](images, condition))
    assert loaded.schema == SCHEMA
    assert loaded.preprocessing == Preprocessing(size=64)
    assert loaded.categories == ("dress", "coat")
    assert not loaded.model.training


def test_model_card_names_what_it_knows(saved: tuple[Path, M2Fashion]) -> None:
    card = (saved[0] / "README.md").read_text()
    assert "floral, striped" in card
    assert "resnet18 up to layer1, with the stages below it and the pixels;" in card


def test_hash_follows_weights_and_schema_not_remarks(
    saved: tuple[Path, M2Fashion], tmp_path: Path
) -> None:
    original = load_checkpoint(saved[0]).hash
    folder = _copy(saved, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["training"]["epoch"] = 99
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).hash == original
    config["preprocessing"]["size"] = 96
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).hash != original


def test_missing_broken_and_foreign_files_are_refused(
    saved: tuple[Path, M2Fashion], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="retrieve train"):
        _ = load_checkpoint(tmp_path).model
    folder = _copy(saved, tmp_path)
    config = (folder / "config.json").read_text()
    for text, message in (
        ("{", "not readable JSON"),
        ("[]", "Expected `object`, got `array`"),
        (config.replace('"format": 1', '"format": 2'), "format = 2 is none of 1"),
        (config.replace('"dim": 16', '"dim": 32'), "of shape"),
        (config.replace('"dim": 16', '"dim": "16"'), "model.dim = '16': Expected `int`"),
        (config.replace('"dim"', '"dimension"'), "unknown option"),
        (config.replace('"dim": 16', '"dim": 1000000000'), "dim = 1000000000"),
        (config.replace('"grid": 4', '"grid": 0'), "grid = 0"),
        (config.replace('"pooling": "mean"', '"pooling": "foo"'), "'foo' is none of"),
        (config.replace('"size": 64', '"size": 1e400'), "preprocessing.size"),
        (config.replace("0.485", "NaN"), "preprocessing.mean"),
    ):
        assert text != config
        (folder / "config.json").write_text(text)
        with pytest.raises(DataError, match=message):
            _ = load_checkpoint(folder).model


def test_fault_18_weights_with_nan_missing_or_extra_tensors_are_refused(
    saved: tuple[Path, M2Fashion], tmp_path: Path
) -> None:
    folder = _copy(saved, tmp_path)
    state = load_file(folder / "model.safetensors")
    first = next(iter(state))
    nan = {**state, "reduce.bias": torch.full_like(state["reduce.bias"], float("nan"))}
    for changed, message in (
        (nan, "NaN"),
        ({k: v for k, v in state.items() if k != first}, f"missing or unknown .*{first}"),
        ({**state, "surprise": torch.zeros(1)}, "missing or unknown .*surprise"),
        (
            {**state, "reduce.bias": state["reduce.bias"].int()},
            "is torch.int32 of shape .* not torch.float32",
        ),
    ):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(DataError, match=message):
            _ = load_checkpoint(folder).model


def test_fault_17_a_pickle_is_refused_and_does_not_run(
    saved: tuple[Path, M2Fashion], tmp_path: Path
) -> None:
    folder = _copy(saved, tmp_path)
    witness = tmp_path / "ran"

    class _Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(witness), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(_Malicious()))
    with pytest.raises(DataError, match="not a readable safetensors"):
        _ = load_checkpoint(folder).model
    assert not witness.exists()
