"""`retrieve add` and `retrieve remove`: paths, labels, exit codes, output."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_index import Shop, run

from indexer.store.store import open_store
from retrieval.options import paths_in


@pytest.fixture
def own(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop of one's own to change."""
    shutil.copytree(shop.root, tmp_path / "own")
    copy = Shop(tmp_path / "own")
    monkeypatch.chdir(copy.root)
    from small_index import BuildOptions, build_index, load_checkpoint, load_dataset

    dataset = load_dataset(str(copy.catalogue))
    rows = np.arange(len(dataset))
    checkpoint = load_checkpoint(copy.run)
    build_index(dataset, rows, checkpoint, copy.index, options=BuildOptions(workers=0))
    return copy


def test_an_added_image_is_found_and_a_removed_one_is_not(own: Shop, capsys) -> None:
    shutil.copy("shop/images/000.png", "shop/new one.png")
    labels = "colour=red,shape=disc,trim=gold,trim=lace"
    code, out, err = run(capsys, "add", own.index, "shop/new one.png", "--labels", labels, "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "index": str(own.index), "added": 1, "changed": 0, "unchanged": 0, "removed": 0,
        "images": 69,
    }  # fmt: skip
    store = open_store(own.index)
    names = np.array(store.schema.value_names)
    assert set(names[store.labels()[-1] == 1]) == {"colour:red", "disc", "gold", "lace"}
    assert set(names[store.labels()[-1] == 0]) == {"angular", "round"} & set(names)
    asked = ("query", "shop/images/000.png", "--top-k", 5, "--include-query", "--json")
    hits = json.loads(run(capsys, *asked)[1])["hits"]
    assert str(own.catalogue / "new one.png") in [hit["path"] for hit in hits]
    code, out, _ = run(capsys, "remove", own.index, "shop/new one.png", "images/001.png")
    assert (code, out) == (0, f"2 removed; 67 images in {own.index}\n")
    hits = json.loads(run(capsys, *asked)[1])["hits"]
    assert str(own.catalogue / "new one.png") not in [hit["path"] for hit in hits]
    assert Path("shop/new one.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["add", "indexes/shop", "shop/images/000.png", "--labels", "colour=rde"], 2, "red"),
        (["add", "indexes/shop", "shop/images/000.png", "--labels", "color=red"], 2, "colour"),
        (["add", "indexes/shop", "shop/images/000.png", "--labels", "red"], 2, "attribute=value"),
        (["add", "indexes/shop", "shop/images/000.png", "--labels", ","], 2, "empty name"),
        (
            ["add", "indexes/shop", "shop/images/000.png", "--labels", "shape=disc,shape=square"],
            2,
            "only one value",
        ),
        (["add", "indexes/shop", "none.png"], 3, "no such file"),
        (["add", "indexes/shop", "runs/shop/best/README.md"], 2, "copy it there first"),
        (["add", "indexes/shop", "shop/broken.jpg"], 3, "nothing was added"),
        (["add", "indexes/shop"], 2, "IMAGE"),
        (["add", "none", "shop/images/000.png"], 3, "no index in none"),
        (["remove", "indexes/shop", "images/0000.png"], 3, "nearest: images/000.png"),
        (["remove", "indexes/shop", "shop/broken.jpg"], 3, "is not in the index"),
        (["remove", "none", "a.png"], 3, "no index in none"),
        (["add", "shop/images/000.png", "indexes/shop"], 3, "that is no folder"),
        (["remove", "indexes/shop", "/etc/passwd"], 3, "is not in the index"),
    ],
)
def test_mistakes(shop: Shop, capsys, monkeypatch, arguments: list[str], code: int, words) -> None:
    monkeypatch.chdir(shop.root)
    before = (shop.index / "manifest.json").read_bytes()
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert words in " ".join(err.split())
    assert (shop.index / "manifest.json").read_bytes() == before


def test_paths_are_those_of_the_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(root)
    assert paths_in(root, "a/1.jpg") == ["a/1.jpg"]
    monkeypatch.chdir(tmp_path)
    assert paths_in(root, "set/a/1.jpg") == ["a/1.jpg", "set/a/1.jpg"]
    assert paths_in(root, "link/a/1.jpg") == ["a/1.jpg", "link/a/1.jpg"]
    assert paths_in(root, str(root / "a/../b.jpg")) == ["b.jpg"]
    assert paths_in(root, "../x.jpg") == []
    assert paths_in(root, "/etc/passwd") == []
    assert paths_in(root, str(root)) == []
    assert paths_in(root, "a\0b") == []
