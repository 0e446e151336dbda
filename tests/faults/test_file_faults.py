"""Files of an index that are cut off, foreign, crafted, or of another format."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.endurance.flips import KINDS, trouble_with
from benchmarks.endurance.read_everything import read_everything
from benchmarks.endurance.small_gallery import SmallGallery
from indexer import atomic
from indexer.array_file import write_arrays
from indexer.committed import COPY_NAME
from indexer.manifest import MANIFEST_NAME, read_manifest
from indexer.store import open_store
from indexer.store_file import open_file
from training.errors import CorruptStoreError, DataError

REPOSITORY = Path(__file__).resolve().parents[2]


def files_of(index: Path, kind: str) -> list[Path]:
    found = sorted(p for p in index.glob(KINDS[kind]) if p.is_file() and p.stat().st_size)
    return [p for p in found if kind != "view" or not p.name.endswith(".ann.faiss")]


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
    own.build(index, index_factory="PQ4x4fs")
    truth = read_everything(index)
    stray = ["notes.txt", "shards/x.tmp", "views/mine.bin", "model/readme", "a folder/b"]
    for name in stray:
        (index / name).parent.mkdir(exist_ok=True)
        (index / name).write_text("not ours")
    left_behind = index / "shards" / f"{atomic.TEMPORARY_PREFIX}1-abc"
    left_behind.write_text("of a killed writer")
    assert read_everything(index) == truth
    own.build(index, index_factory="PQ4x4fs")
    assert read_everything(index) == truth
    assert all((index / name).read_text() == "not ours" for name in stray)
    assert not left_behind.exists()


def test_fault_11_files_of_another_build_are_refused(own: SmallGallery, tmp_path: Path) -> None:
    index, other = own.folder / "index", tmp_path / "other"
    pictures = sorted((own.shop / "images").iterdir())
    pictures[0].write_bytes(pictures[1].read_bytes())
    own.build(other, index_factory="PQ4x4fs")
    for kind in ("shard", "gallery", "view", "approximate index"):
        path, foreign = files_of(index, kind)[0], files_of(other, kind)[0]
        content = path.read_bytes()
        path.write_bytes(foreign.read_bytes())
        with pytest.raises(CorruptStoreError, match=path.name):
            read_everything(index)
        path.write_bytes(content)


def test_fault_13_an_older_format_opens_and_a_newer_is_refused(own: SmallGallery) -> None:
    index = own.folder / "index"
    truth = read_everything(index)
    path = index / MANIFEST_NAME
    data = json.loads(path.read_text())
    current = data["format"]
    from indexer import manifest as module

    for number in (1, current, current + 1):
        body = {key: value for key, value in data.items() if key != "checksum"}
        body["format"] = number
        path.write_text(json.dumps(body | {"checksum": module._checksum(body)}))
        if number <= current:
            assert read_everything(index) == truth
            continue
        with pytest.raises(DataError, match=f"format {number}.*newer") as caught:
            open_store(index)
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
    for kind in ("shard", "gallery", "view", "approximate index", "model"):
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


def test_fault_17_a_shard_of_strange_types_is_not_read_as_pickles(tmp_path: Path) -> None:
    from indexer.mapped_hdf5 import map_arrays

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("maps", data=["a", "b"], dtype=h5py.string_dtype())
    with (tmp_path / "x.h5").open("rb") as handle, pytest.raises(CorruptStoreError, match=r"x\.h5"):
        map_arrays(handle, "x.h5")
    write_arrays(tmp_path / "y.h5", {"maps": np.zeros((2, 2), np.int8)})
    with (tmp_path / "y.h5").open("rb") as handle:
        assert set(map_arrays(handle, "y.h5")) == {"maps"}


def test_fault_19_a_crafted_index_file_is_refused_unparsed(
    own: SmallGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    index = own.folder / "index"
    for path in files_of(index, "approximate index"):
        crafted = bytearray(path.read_bytes())
        crafted[4:16] = b"\xff" * 12  # sizes without bounds
        path.write_bytes(crafted)

    def parse(*arguments: object) -> None:
        raise AssertionError("parsed before it was checked")

    monkeypatch.setattr(faiss, "read_index", parse)
    with pytest.raises(CorruptStoreError, match=r"\.ann\.faiss is damaged"):
        read_everything(index)


def test_fault_27_a_manifest_cannot_name_files_outside(own: SmallGallery) -> None:
    from indexer import manifest as module

    path = own.folder / "index" / MANIFEST_NAME
    (path.parent / COPY_NAME).unlink()  # it would stand in
    text = path.read_text()
    name = read_manifest(path).gallery.name  # type: ignore[union-attr]
    for evil in ("../x.h5", "/etc/passwd", "a/../../x", "..\\\\x", ""):
        body = json.loads(text.replace(f'"{name}"', f'"{evil}"'))
        del body["checksum"]
        path.write_text(json.dumps(body | {"checksum": module._checksum(body)}))
        with pytest.raises(CorruptStoreError, match="outside of the index"):
            open_store(own.folder / "index")
    path.write_text(text)
    entry = read_manifest(path).gallery  # type: ignore[union-attr]
    assert entry is not None
    open_file(own.folder / "index", entry).close()
