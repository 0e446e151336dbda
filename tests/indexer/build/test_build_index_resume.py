"""Interruption, repair and reuse: whatever happens, the index equals an uninterrupted one."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_gallery
from tiny_gallery import TinyCheckpoint, build, tiny_checkpoint, write_images

from indexer.build import build as build_module
from indexer.search.index import open_search
from indexer.store.manifest import BUILDING_NAME, COPY_NAME, MANIFEST_NAME, Manifest, write_manifest
from indexer.store.store import Store, open_store
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, LockedError, ResourceError

COUNT = 30  # four shards of 8, the last of 6


@pytest.fixture
def whole(tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint) -> Store:
    build(dataset, checkpoint, tmp_path / "whole")
    checkpoint.model.encoded = 0
    return open_store(tmp_path / "whole")


def assert_same(found: Store, expected: Store) -> None:
    found.check()
    assert list(found.paths) == list(expected.paths)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.labels(), expected.labels())
    np.testing.assert_array_equal(found.descriptors(), expected.descriptors())
    np.testing.assert_array_equal(found.digests(), expected.digests())
    np.testing.assert_array_equal(found.items(), expected.items())
    assert list(found.payload["sku"].cells) == list(expected.payload["sku"].cells)
    np.testing.assert_array_equal(found.gallery.splits, expected.gallery.splits)


def visible(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


class Crash(Exception):
    pass


@pytest.mark.parametrize("shards_done", [1, 3, 4])
def test_fault_01_a_crash_between_shards_loses_nothing(
    tmp_path: Path,
    dataset: Dataset,
    checkpoint: TinyCheckpoint,
    whole: Store,
    monkeypatch: pytest.MonkeyPatch,
    shards_done: int,
) -> None:
    written = []

    def crash_after(path: Path, manifest: object) -> None:
        real(path, manifest)
        written.append(path)
        if len(written) == shards_done:
            raise Crash

    real = build_module.write_manifest
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_manifest", crash_after)
        with pytest.raises(Crash):
            build(dataset, checkpoint, out)
    with pytest.raises(DataError, match="not finished"):
        open_store(out)
    checkpoint.model.encoded = 0
    report = build(dataset, checkpoint, out)
    assert report.kept == min(COUNT, 8 * shards_done)
    assert checkpoint.model.encoded == report.encoded == COUNT - report.kept
    assert_same(open_store(out), whole)
    assert visible(out) == visible(whole.folder)


def test_fault_01_kill_9_at_a_random_point(tmp_path: Path, dataset: Dataset, whole: Store) -> None:
    out = tmp_path / "out"
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parents[1]), str(here.parents[3])])
    script = [sys.executable, str(here.parents[1] / "tiny_gallery.py")]
    process = subprocess.Popen(
        [*script, str(dataset.root), str(out), str(COUNT)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (out / BUILDING_NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.random() * 0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / BUILDING_NAME).exists() or (out / MANIFEST_NAME).exists()
    report = build(dataset, tiny_checkpoint(tmp_path / "run"), out)
    assert report.kept >= 8
    assert_same(open_store(out), whole)
    assert not [name for name in visible(out) if ".tmp-" in name]


def test_fault_14_a_second_builder_is_told_the_pid_of_the_first(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, pathlib; from indexer.store.manifest import writer_lock\n"
        f"with writer_lock(pathlib.Path({str(out)!r})): print('held', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=rf"process {process.pid} "):
        build(dataset, checkpoint, out)
    process.kill()  # the lock dies with its holder
    process.wait()
    assert build(dataset, checkpoint, out).images == COUNT


def test_nothing_is_encoded_again_when_nothing_changed(
    dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    before = visible(whole.folder)
    report = build(dataset, checkpoint, whole.folder)
    assert (report.encoded, report.kept, checkpoint.model.encoded) == (0, COUNT, 0)
    assert visible(whole.folder) == before


def test_corrected_labels_need_no_encoding(
    dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    corrected = dataclasses.replace(dataset, labels=-dataset.labels)
    assert build(corrected, checkpoint, whole.folder).encoded == 0
    np.testing.assert_array_equal(open_store(whole.folder).labels(), corrected.labels)


def test_a_changed_image_is_encoded_anew_alone(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    before = whole.descriptors().copy()
    other = write_images(tmp_path / "other", COUNT + 1)[COUNT]
    target = dataset.root / dataset.paths[10]
    target.write_bytes((tmp_path / "other" / other).read_bytes())
    report = build(dataset, checkpoint, whole.folder)
    assert (report.encoded, report.kept) == (1, COUNT - 1)
    build(dataset, checkpoint, tmp_path / "fresh")
    found, expected = (open_store(p) for p in (whole.folder, tmp_path / "fresh"))
    assert np.flatnonzero((found.descriptors() != before).any(1)).tolist() == [10]
    assert np.abs(found.descriptors().astype(int) - expected.descriptors()).max() <= 1


def test_touched_files_of_the_same_content_are_kept(
    dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    for path in dataset.paths:
        os.utime(dataset.root / path, ns=(1, 1))
    assert build(dataset, checkpoint, whole.folder).encoded == 0


def test_fault_12_another_model_builds_anew_and_the_old_index_stays_usable(
    tmp_path: Path,
    dataset: Dataset,
    whole: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    said: list[str] = []

    class Listener:
        def start(self, stage: str, total: int) -> None: ...
        def say(self, message: str) -> None:
            said.append(message)

        def advance(self, count: int) -> None:
            if other.model.encoded > 20:
                raise Crash

    with pytest.raises(Crash):
        build(dataset, other, whole.folder, progress=Listener())
    assert "model" in said[0]
    assert_same(open_store(whole.folder), whole)  # half a build of another model changes nothing
    report = build(dataset, other, whole.folder)
    assert (report.kept, report.encoded) == (16, 14)
    build(dataset, other, tmp_path / "fresh")
    assert_same(open_store(whole.folder), open_store(tmp_path / "fresh"))
    # A reader from before the commit still has its version: its files are open.
    assert whole.descriptors().shape == (COUNT, 32)


def test_fault_07_every_flipped_byte_is_found_and_repaired(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    build(dataset, checkpoint, whole.folder, index_factory="IVF2")
    whole = open_store(whole.folder)
    generator = random.Random(0)
    caught = 0
    entries = whole.manifest.files
    for entry in entries:
        path = whole.folder / entry.name
        content = path.read_bytes()
        position = generator.randrange(len(content))
        flipped = bytearray(content)
        flipped[position] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CorruptStoreError, match=path.name):
            read_all(open_store(whole.folder))
        caught += 1
        path.write_bytes(content)
    assert caught == len(entries) == 8
    for entry in entries:
        (whole.folder / entry.name).write_bytes(b"x")
        with pytest.raises(CorruptStoreError, match=(whole.folder / entry.name).name):
            read_all(open_store(whole.folder))
        build(dataset, checkpoint, whole.folder, index_factory="IVF2")
        read_all(open_store(whole.folder))
    build(dataset, checkpoint, tmp_path / "fresh")
    assert_same(open_store(whole.folder), open_store(tmp_path / "fresh"))


def read_all(store: Store) -> None:
    """Use every file of an index the way a query does."""
    assert store.model_folder.is_dir()
    store.descriptors()
    open_search(store)
    store.check()  # and what a query has no use for, such as the labels in a shard


def test_fault_09_a_damaged_manifest_is_found(whole: Store) -> None:
    path, copy = whole.folder / MANIFEST_NAME, whole.folder / COPY_NAME
    text = path.read_text()
    assert copy.read_text() == text
    for broken in (text[: len(text) // 2], text.replace('"rows": 8', '"rows": 9', 1), "", "[]"):
        path.write_text(broken)
        store = open_store(whole.folder)
        assert COPY_NAME in "".join(store.remarks)
        assert_same(store, whole)
        copy.write_text(broken)
        with pytest.raises(CorruptStoreError, match=r"manifest\.json is damaged"):
            open_store(whole.folder)
        copy.write_text(text)
    path.unlink()
    assert "is missing" in "".join(open_store(whole.folder).remarks)
    path.write_text(text)
    assert open_store(whole.folder).remarks == ()
    path.write_text(text.replace('"format": 4', '"format": 5'))
    with pytest.raises(DataError, match="format 5"):
        open_store(whole.folder)
    path.write_text(text.replace('"format": 4', '"format": 3'))
    with pytest.raises(DataError, match=r"built by an earlier version .* build it again"):
        open_store(whole.folder)


def test_an_old_manifest_whose_files_are_gone_gives_way_to_the_copy(
    tmp_path: Path, dataset: Dataset, whole: Store
) -> None:
    old = (whole.folder / MANIFEST_NAME).read_bytes()
    build(dataset, tiny_checkpoint(tmp_path / "other", seed=7), whole.folder)
    new = open_store(whole.folder)
    (whole.folder / MANIFEST_NAME).write_bytes(old)  # as if the last write had been lost
    found = open_store(whole.folder)
    assert found.manifest == new.manifest
    assert COPY_NAME in "".join(found.remarks)


def test_between_the_manifest_and_its_copy_both_versions_open(
    tmp_path: Path, dataset: Dataset, whole: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, manifest: Manifest) -> None:
        write_manifest(folder / MANIFEST_NAME, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.build.version.commit_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        build(dataset, tiny_checkpoint(tmp_path / "other", seed=7), whole.folder)
    assert open_store(whole.folder).manifest.identity.model == "hash7"
    (whole.folder / MANIFEST_NAME).write_text("")
    assert_same(open_store(whole.folder), whole)


def test_fault_05_a_full_disk_leaves_the_old_index_and_no_temporary_file(
    tmp_path: Path, dataset: Dataset, whole: Store
) -> None:
    here = Path(__file__).resolve()
    code = (
        "import resource, sys, pathlib, tiny_gallery as t\n"
        # No file may grow beyond this, which is less than a shard needs.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "root, out = map(pathlib.Path, sys.argv[1:])\n"
        "names = sorted(str(p.relative_to(root)) for p in root.glob('pic/*'))\n"
        "try: t.build(t.gallery(root, names), t.tiny_checkpoint(root / 'run', seed=5), out)\n"
        "except t.ResourceError as error: print(error)\n"
    )
    code = code.replace("t.ResourceError", "__import__('training.errors').errors.ResourceError")
    path = os.pathsep.join([str(here.parents[1]), str(here.parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", code, str(dataset.root), str(whole.folder)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write" in done.stdout
    assert not [name for name in visible(whole.folder) if ".tmp-" in name]
    assert_same(open_store(whole.folder), whole)


def test_fault_06_a_folder_that_cannot_be_written_is_a_resource_error(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file"):
        build(dataset, checkpoint, tmp_path / "file" / "out")


def test_worker_processes_give_the_same_index(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, whole: Store
) -> None:
    assert Path(tiny_gallery.__file__).exists()  # the workers import nothing of the tests
    build(dataset, checkpoint, tmp_path / "out", workers=1)
    assert_same(open_store(tmp_path / "out"), whole)
