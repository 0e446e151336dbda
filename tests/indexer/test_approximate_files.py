"""The files of an index's views: made and kept, against damage, from older versions."""

from __future__ import annotations

import dataclasses
import json
import mmap
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from clustered import assert_is_brute
from tiny_gallery import build as build_tiny
from tiny_gallery import gallery, tiny_checkpoint, write_images

from indexer import approximate
from indexer.approximate import read_index
from indexer.approximate_views import add_approximate
from indexer.flat_file import map_flat
from indexer.index_choice import choose_index
from indexer.manifest import MANIFEST_NAME, ApproximateEntry, Manifest, read_manifest
from indexer.store import open_store
from indexer.view import View, open_view
from training.errors import CorruptStoreError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny index of 40 images whose views are searched by PQ2x4fs."""
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 40))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    build_tiny(dataset, checkpoint, tmp_path / "out", index_factory="PQ2x4fs")
    return tmp_path / "out"


def test_build_index_makes_them_and_keeps_them(tmp_path: Path, folder: Path) -> None:
    manifest = read_manifest(folder / MANIFEST_NAME)
    assert manifest is not None
    store = open_store(folder)
    store.check()
    for entry in manifest.views:
        assert entry.seconds is not None
        assert entry.approximate is not None
        assert entry.approximate.file in manifest.files
        assert (entry.approximate.factory, entry.approximate.target) == ("PQ2x4fs", 0.98)
        view = open_view(store, entry.key)
        assert view is not None
        assert (view.name, len(view)) == (entry.name, 40)
        assert view.source.what == "PQ2x4fs"
        assert_is_brute(view, np.array(view.vectors[:3]), 10)
        view.close()
    assert open_view(store, "0" * 16) is None
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 40))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("views/*")}
    assert len(kept) == 2 * len(manifest.views)
    report = build_tiny(dataset, checkpoint, folder, index_factory="PQ2x4fs")
    assert {p: p.stat().st_mtime_ns for p in folder.glob("views/*")} == kept
    assert (report.search.factory, len(report.recalls)) == ("PQ2x4fs", len(manifest.views))
    report = build_tiny(dataset, checkpoint, folder, index_factory="IVF2,Flat", recall=0.5)
    assert report.search.factory == "IVF2,Flat"
    assert len(list(folder.glob("views/*.ann.faiss"))) == len(manifest.views)
    report = build_tiny(dataset, checkpoint, folder)  # 40 images are few
    assert (report.search.factory, report.recalls) == ("Flat", ())
    assert not list(folder.glob("views/*.ann.faiss"))
    with pytest.raises(UsageError, match="'PQ3x4fs'"):
        build_tiny(dataset, checkpoint, folder, index_factory="PQ3x4fs")


def test_a_view_that_misses_the_target_is_searched_whole(folder: Path) -> None:
    manifest = read_manifest(folder / MANIFEST_NAME)
    assert manifest is not None
    said: list[str] = []

    class Listener:
        def start(self, stage: str, total: int) -> None: ...
        def advance(self, count: int) -> None: ...
        def say(self, message: str) -> None:
            said.append(message)

    choice = dataclasses.replace(choose_index(40, 8, factory="IVF2,PQ1x4fs"), why="chosen")
    approximate_views = sys.modules["indexer.approximate_views"]
    miss = approximate.Tuning(128, 2, 0.5, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate_views, "tune", lambda *a: miss)
        views = add_approximate(
            folder, manifest.views, 40, 8, choice, 0.98, asked=False, progress=Listener()
        )
        assert all(view.approximate is None for view in views)
        assert len(said) == len(views)
        assert "0.500 of 0.98" in said[0]
        views = add_approximate(
            folder, manifest.views, 40, 8, choice, 0.98, asked=True, progress=Listener()
        )
        assert all(view.approximate and view.approximate.recall == 0.5 for view in views)


def test_fault_19_every_flipped_byte_is_found_before_faiss_reads_it(folder: Path) -> None:
    generator = random.Random(0)
    store = open_store(folder)
    caught = 0
    for entry in store.manifest.views:
        assert entry.approximate is not None
        for file in (entry.file, entry.approximate.file):
            path = folder / file.name
            content = path.read_bytes()
            for _ in range(10):
                flipped = bytearray(content)
                flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
                path.write_bytes(flipped)
                with pytest.raises(CorruptStoreError, match=path.name):
                    _ = open_view(store, entry.key).source
                caught += 1
            path.write_bytes(content[:-1])
            with pytest.raises(CorruptStoreError, match="bytes instead of"):
                open_view(store, entry.key)
            path.write_bytes(content)
    assert caught == 20 * len(store.manifest.views)


def test_fault_15_views_outlive_the_version_they_were_opened_in(
    tmp_path: Path, folder: Path
) -> None:
    store = open_store(folder)
    entry = store.manifest.views[0]
    view = open_view(store, entry.key)
    assert view is not None
    before = np.array(view.vectors)
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 40))
    build_tiny(dataset, tiny_checkpoint(tmp_path / "other", seed=1), folder)
    np.testing.assert_array_equal(view.vectors, before)
    assert view.source.what == "PQ2x4fs"  # opened only now, from the file that is gone
    assert open_view(store, entry.key) is None


def test_threads_that_search_a_view_first_read_it_once(folder: Path) -> None:
    store = open_store(folder)
    key = store.manifest.views[0].key
    for _ in range(20):
        view = open_view(store, key)
        assert view is not None
        start, found = threading.Barrier(3), []

        def search(view: View, start: threading.Barrier, found: list[int]) -> None:
            start.wait()
            found.append(id(view.source))

        ask = (view, start, found)
        threads = [threading.Thread(target=search, args=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        assert len(set(found)) == 1


def test_files_that_are_no_index_of_that_shape(tmp_path: Path, folder: Path) -> None:
    entry = open_store(folder).manifest.views[0]
    assert entry.approximate is not None
    for content, words in ((b"x" * 100, "not a faiss index"), (None, "40 x 8 vectors instead")):
        path = tmp_path / "index"
        path.write_bytes(content or (folder / entry.approximate.file.name).read_bytes())
        with path.open("rb") as handle:
            mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            with pytest.raises(CorruptStoreError, match=words):
                read_index(mapped, path, 41, 8)
            with pytest.raises(CorruptStoreError, match="no flat index of 41 x 8"):
                map_flat(handle, 41, 8)


def test_manifests_of_format_1_still_open(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    now = read_manifest(path)
    assert now is not None
    body = json.loads(path.read_text())
    assert body.pop("format") == 2
    del body["checksum"]
    for view in body["views"]:  # as they were
        del view["approximate"], view["seconds"]
    body = {"format": 1} | body
    code = (
        "import hashlib, json, sys; body = json.load(sys.stdin);"
        "text = json.dumps(body, sort_keys=True).encode();"
        "print(json.dumps(body | {'checksum': hashlib.sha256(text).hexdigest()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(body), capture_output=True, text=True
    )
    path.write_text(done.stdout)
    old = read_manifest(path)
    bare = [dataclasses.replace(v, seconds=None, approximate=None) for v in now.views]
    assert old == dataclasses.replace(now, views=tuple(bare))
    store = open_store(folder)
    view = open_view(store, old.views[0].key)
    assert view is not None
    assert view.source.what == "Flat"


def test_the_entry_survives_the_manifest(folder: Path) -> None:
    manifest = read_manifest(folder / MANIFEST_NAME)
    assert isinstance(manifest, Manifest)
    assert all(isinstance(v.approximate, ApproximateEntry) for v in manifest.views)
