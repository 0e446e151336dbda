"""Files of an index that are cut off, foreign, crafted, or of another format."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flips import FACTORY, KINDS, trouble_with
from read_everything import read_everything
from small_gallery import SmallGallery, write_labels

from indexer.store.files import map_arrays, open_file, write_arrays
from indexer.store.manifest import COPY_NAME, MANIFEST_NAME, _checksum, read_manifest
from indexer.store.store import open_store
from training import files as atomic
from training.errors import CorruptStoreError, DataError

REPOSITORY = Path(__file__).resolve().parents[2]


def files_of(index: Path, kind: str) -> list[Path]:
    return sorted(p for p in index.glob(KINDS[kind]) if p.is_file() and p.stat().st_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, -1])
def test_fault_08_a_truncated_or_empty_file(own: SmallGallery, kind: str, size: int) -> None:
    index = own.folder / "index"
    truth = read_everything(index)
    path = files_of(index, kind)[0]
    path.write_bytes(path.read_bytes()[:size])
    assert trouble_with(index, path, truth) is None


def test_fault_10_stray_files_are_ignored_and_left_alone(own: SmallGallery) -> None:
    index = own.folder / "index"
    own.build(index, index_factory=FACTORY)
    truth = read_everything(index)
    stray = ["notes.txt", "shards/x.tmp", "searches/mine.bin", "model/readme", "a folder/b"]
    for name in stray:
        (index / name).parent.mkdir(exist_ok=True)
        (index / name).write_text("not ours")
    left_behind = index / "shards" / f"{atomic.TEMPORARY_PREFIX}1-abc"
    left_behind.write_text("of a killed writer")
    assert read_everything(index) == truth
    own.build(index, index_factory=FACTORY)
    assert read_everything(index) == truth
    assert all((index / name).read_text() == "not ours" for name in stray)
    assert not left_behind.exists()


def test_fault_11_files_of_another_build_are_refused(own: SmallGallery, tmp_path: Path) -> None:
    index, other = own.folder / "index", tmp_path / "other"
    write_labels(own.shop, [1, 0, *range(2, 40)])
    own.build(other, index_factory=FACTORY)
    for kind in ("shard", "gallery", "search"):
        path, foreign = files_of(index, kind)[0], files_of(other, kind)[0]
        content = path.read_bytes()
        path.write_bytes(foreign.read_bytes())
        with pytest.raises(CorruptStoreError, match=path.name):
            read_everything(index)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "earlier version .*build it again"), (3, "earlier version"), (5, "format 5.*newer")],
)
def test_fault_13_another_format_is_refused(own: SmallGallery, number: int, words: str) -> None:
    index = own.folder / "index"
    path = index / MANIFEST_NAME
    body = json.loads(path.read_text())
    del body["checksum"]
    body["format"] = number
    path.write_text(json.dumps(body | {"checksum": _checksum(body)}))
    for use in (lambda: open_store(index), lambda: own.build(index)):
        with pytest.raises(DataError, match=words) as caught:
            use()
        assert caught.value.exit_code == 3


def test_fault_17_a_pickle_or_an_array_of_objects_in_place_of_a_store_file(
    own: SmallGallery, tmp_path: Path
) -> None:
    """Refused by its hash; and where the hash is right, by its form: nothing executes."""
    import pickle

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    evil = pickle.dumps(Malicious())
    objects = np.array([Malicious()], dtype=object)
    np.save(tmp_path / "evil.npy", objects, allow_pickle=True)
    index = own.folder / "index"
    for kind in ("shard", "gallery", "search", "model"):
        for content in (evil, (tmp_path / "evil.npy").read_bytes()):
            path = files_of(index, kind)[0]
            whole = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(CorruptStoreError, match=path.name):
                read_everything(index)
            path.write_bytes(content + bytes(len(whole) - len(content)))
            with pytest.raises(CorruptStoreError, match=path.name):
                read_everything(index)
            path.write_bytes(whole)
    assert not (tmp_path / "ran").exists()


def test_fault_17_an_array_of_objects_is_no_place_in_a_file(tmp_path: Path) -> None:
    places = write_arrays(tmp_path / "y.h5", {"descriptors": np.zeros((2, 8), np.uint8)})
    for wrong in (replace(places[0], dtype="|O"), replace(places[0], shape=(1 << 40,))):
        with (tmp_path / "y.h5").open("rb") as handle:
            with pytest.raises(CorruptStoreError, match=r"y\.h5"):
                map_arrays(handle, "y.h5", (wrong,))
    with (tmp_path / "y.h5").open("rb") as handle:
        assert set(map_arrays(handle, "y.h5", places)) == {"descriptors"}


def test_fault_19_a_crafted_index_file_is_refused_unparsed(
    own: SmallGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    index = own.folder / "index"
    for path in files_of(index, "search"):
        crafted = bytearray(path.read_bytes())
        crafted[4:16] = b"\xff" * 12  # sizes without bounds
        path.write_bytes(crafted)

    def parse(*arguments: object) -> None:
        raise AssertionError("parsed before it was checked")

    monkeypatch.setattr(faiss, "read_index", parse)
    with pytest.raises(CorruptStoreError, match=r"search-.*\.faiss is damaged"):
        read_everything(index)


def test_fault_27_a_manifest_cannot_name_files_outside(own: SmallGallery) -> None:
    path = own.folder / "index" / MANIFEST_NAME
    (path.parent / COPY_NAME).unlink()  # it would stand in
    text = path.read_text()
    name = read_manifest(path).gallery.name  # type: ignore[union-attr]
    for evil in ("../x.h5", "/etc/passwd", "a/../../x", "..\\\\x", ""):
        body = json.loads(text.replace(f'"{name}"', f'"{evil}"'))
        del body["checksum"]
        path.write_text(json.dumps(body | {"checksum": _checksum(body)}))
        with pytest.raises(CorruptStoreError, match="outside of the index"):
            open_store(own.folder / "index")
    path.write_text(text)
    entry = read_manifest(path).gallery  # type: ignore[union-attr]
    assert entry is not None
    open_file(own.folder / "index", entry).close()
