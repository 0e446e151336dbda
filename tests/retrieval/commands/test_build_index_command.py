"""`retrieve build-index` from the command line to an index, on a small catalogue."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.store.store import Store, open_store
from retrieval.cli import main
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a catalogue `shop` of 12 images and a model in runs/shop/best."""
    monkeypatch.chdir(tmp_path)
    lines = ["image,split,neck,pattern"]
    (tmp_path / "shop").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 255, (40, 30, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "shop" / f"{number}.jpg")
        split = ("train", "valid", "test")[number % 3]
        lines.append(f"{number}.jpg,{split},{'v' if number % 2 else 'round'},floral|plain")
    (tmp_path / "shop" / "labels.csv").write_text("\n".join(lines) + "\n")
    schema = load_dataset("shop").schema
    model = M2Fashion(schema, ModelConfig(backbone="resnet18", stage="layer1", grid=2, dim=16))
    save_checkpoint(tmp_path / "runs/shop/best", model, Preprocessing(size=32), (), {})
    return tmp_path


def retrieve(*arguments: str, command: str = "build-index") -> int:
    with pytest.raises(SystemExit) as stopped:
        main([command, *arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_json_and_nothing_else_on_standard_output(shop: Path, capsys) -> None:
    assert retrieve("--dataset", "shop", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "index", "dataset", "checkpoint", "device", "listed", "images", "rejected", "encoded",
        "kept", "seconds", "images_per_second", "bytes", "runtime", "search",
    }  # fmt: skip
    assert (found["images"], found["encoded"], found["index"]) == (12, 12, "indexes/shop")
    assert found["search"] == {"factory": "flat", "recall": 1.0, "worst_recall": 1.0}
    on_disk = [p for p in (shop / "indexes/shop").rglob("*") if p.is_file()]
    assert found["bytes"] <= sum(p.stat().st_size for p in on_disk)
    assert retrieve("--dataset", "shop", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 12


def test_the_index_opens_by_itself(shop: Path, capsys) -> None:
    assert retrieve("--dataset", "shop", "--split", "test", "--limit", "3") == 0
    told = capsys.readouterr().out
    assert "images    3 (3 encoded, 0 kept)" in told
    assert "search    flat bytes" in told
    store = open_store(Path("indexes/shop"))
    assert list(store.paths) == ["2.jpg", "5.jpg", "8.jpg"]
    copied = load_checkpoint(store.model_folder)
    assert copied.hash == store.manifest.identity.model
    assert_described_by(store, copied.model, shop / "shop")


def assert_described_by(store: Store, model: M2Fashion, folder: Path) -> None:
    """The stored bytes are those of what the model sees in the files, give or take one."""
    pixels = np.stack([store.preprocessing.open(folder / path) for path in store.paths])
    with torch.inference_mode():
        found = model.describe(
            model.trunk(normalise(torch.from_numpy(pixels), store.preprocessing))
        )
    direct = store.layout.pack(found.chances.numpy(), found.nuance.numpy())
    apart = np.abs(direct.astype(int) - store.descriptors())
    assert apart.max() <= 1


def test_the_broken_are_counted(shop: Path, capsys) -> None:
    (shop / "shop/3.jpg").write_bytes(b"no image")
    assert retrieve("--dataset", "shop", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rejected"] == 1
    assert retrieve("--dataset", "shop", "--max-reject-rate", "0.05") == 3
    assert "indexes/shop/rejects.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--dataset", "shpo"], 2, "unknown dataset 'shpo'"),
        (["--dataset", "shop", "--split", "tset"], 2, "splits of this dataset: test, train, valid"),
        (["--dataset", "shop", "--index-factory", "HNSW"], 2, "unknown index factory 'HNSW'"),
        (["--dataset", "shop", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["--dataset", "shop", "--batch-size", "0"], 2, "batch-size"),
        (["--dataset", "shop", "--checkpoint", "gone"], 3, "gone is no checkpoint"),
        (["--dataset", "shop", "--part", "3/2"], 2, "give such as 3/16"),
        (["--dataset", "other"], 2, "retrieve train --dataset other"),
        (["--dataset", "shop", "--out", "shop/labels.csv"], 6, "labels.csv"),
    ],
)
def test_mistakes(shop: Path, capsys, arguments: list[str], code: int, words: str) -> None:
    (shop / "other").mkdir()
    assert retrieve(*arguments) == code
    assert words in capsys.readouterr().err
    assert not (shop / "indexes").exists()


def test_parts_are_encoded_and_merged(shop: Path, capsys) -> None:
    how = ("--dataset", "shop", "--shard-rows", "4")
    assert retrieve(*how, "--out", "whole") == 0
    assert retrieve(*how, "--part", "1/2", "--json") == 0
    found = json.loads("{" + capsys.readouterr().out.partition("{")[2])
    assert (found["index"], found["images"]) == ("indexes/shop/parts/1-of-2", 8)
    assert found["search"] is None
    assert retrieve(*how, command="merge-index") == 3
    assert "1 of 3 shards are missing: 1; run `retrieve build-index` with --part 2/2" in (
        capsys.readouterr().err
    )
    assert retrieve(*how, "--part", "2/2", "--out", "far") == 0
    assert "part      far/parts/2-of-2" in capsys.readouterr().out
    assert retrieve(*how, "indexes/shop", "far", command="merge-index") == 0
    assert "images    12 (0 encoded, 12 kept)" in capsys.readouterr().out
    names = {path.relative_to("whole") for path in Path("whole").rglob("*.*") if path.is_file()}
    for name in names:
        assert (Path("indexes/shop") / name).read_bytes() == (Path("whole") / name).read_bytes()
    assert retrieve("--dataset", "shop", command="merge-index") == 3  # its parts are gone


def test_missing_pictures_are_found_before_any_is_encoded(shop: Path, capsys) -> None:
    (shop / "shop/0.jpg").unlink()
    assert retrieve("--dataset", "shop") == 0
    assert "1 of 12 listed pictures are missing" in capsys.readouterr().err
    (shop / "shop/1.jpg").unlink()
    assert retrieve("--dataset", "shop", "--out", "other") == 3
    said = capsys.readouterr().err
    assert "2 of 12 listed pictures are missing" in said
    assert "more than 10% allowed by --max-reject-rate: 0.jpg, 1.jpg; nothing was encoded" in said
    assert not (shop / "other").exists()


def test_the_index_of_another_folder_of_the_name_is_not_replaced(shop: Path, capsys) -> None:
    assert retrieve("--dataset", "shop") == 0
    shutil.copytree(shop / "shop", shop / "b/shop")
    again = ("--dataset", "b/shop", "--checkpoint", "runs/shop/best")
    assert retrieve(*again) == 2
    said = capsys.readouterr().err
    assert f"index of another dataset, {shop / 'shop'}, not of {shop / 'b/shop'}" in said
    assert open_store(shop / "indexes/shop").root == shop / "shop"
    assert retrieve(*again, "--out", "indexes/shop") == 0
    shutil.rmtree(shop / "b")  # moved away: nobody needs that index
    assert retrieve("--dataset", "shop") == 0
    assert open_store(shop / "indexes/shop").root == shop / "shop"


def test_a_link_is_called_as_it_is_given(shop: Path) -> None:
    (shop / "autumn").symlink_to("shop")
    (shop / "runs/shop").rename(shop / "runs/autumn")
    assert retrieve("--dataset", "autumn/") == 0
    assert load_dataset("autumn").name == "autumn"
    assert (shop / "indexes/autumn/manifest.json").is_file()


def test_labels_that_the_model_does_not_know_are_named(shop: Path, capsys) -> None:
    text = (shop / "shop/labels.csv").read_text()
    text = (
        text.replace("neck,", "neck,sole,")
        .replace(",v,", ",boat,flat,")
        .replace("round,", "round,high,")
    )
    (shop / "shop/labels.csv").write_text(text)
    assert retrieve("--dataset", "shop") == 0
    said = capsys.readouterr().err
    assert "left out, the model does not know: neck:boat" in said
    assert "kept beside them: sole" in said
    store = open_store(shop / "indexes/shop")
    assert store.payload["sole"].text(0) == "high"
    # A picture of a boat neck has none of the necks that the model knows.
    necks = store.labels_of(np.arange(2))[:, store.schema.slice_of(store.schema.attribute("neck"))]
    assert necks.tolist() == [[1, -1], [-1, -1]]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no ../shared beside the checkout")
def test_descriptors_of_photographs_are_the_models(tmp_path: Path, monkeypatch) -> None:
    data = (SHARED / "data/street-clothing").resolve()
    weights = str((SHARED / "weights/resnet18-imagenet-layer3.safetensors").resolve())
    dataset = load_dataset(str(data))
    torch.manual_seed(0)
    model = M2Fashion(dataset.schema, ModelConfig(backbone="resnet18", dim=128), weights=weights)
    save_checkpoint(tmp_path / "run", model, Preprocessing(size=128), (), {})
    arguments = ["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert retrieve("--dataset", str(data), *arguments, "--limit", "24") == 0
    store = open_store(tmp_path / "out")
    loaded = load_checkpoint(store.model_folder)
    assert_described_by(store, loaded.model, data)
