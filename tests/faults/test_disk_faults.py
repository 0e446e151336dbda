"""A build that is stopped, and disks that are full, fail, or lose what was not synced."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from flips import FACTORY
from forked import run_forked
from read_everything import read_everything
from small_gallery import SmallGallery, make_gallery

from retrieval.cli import main
from retrieval.console import Bars
from training import files as atomic
from training.errors import ResourceError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_fault_03_a_stopped_build_ends_cleanly_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    gallery = make_gallery(tmp_path, 40)
    out = tmp_path / "out"
    encoded = 0

    def advance(self: object, count: int) -> None:
        nonlocal encoded
        encoded += count
        if encoded >= 20:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Bars, "advance", advance)
    words = ["--dataset", gallery.shop, "--checkpoint", gallery.model, "--out", out]
    options = ["--shard-rows", 8, "--batch-size", 4, "--workers", 0, "--device", "cpu"]
    ended = run_forked(lambda: main(["build-index", *map(str, [*words, *options])]), limit=120)
    assert (ended.code, ended.hung) == (code, False)
    assert not [p for p in out.rglob("*") if p.name.startswith(atomic.TEMPORARY_PREFIX)]
    report = gallery.build(out)
    assert report.kept >= 8
    assert report.images == 40


def test_fault_04_what_was_not_synced_may_be_lost(own: SmallGallery, tmp_path: Path) -> None:
    """The disk keeps a name once its folder was synced, and content once the file was."""
    index, disk = own.folder / "index", tmp_path / "disk"
    shutil.copytree(index, disk)
    pictures = sorted((own.shop / "images").iterdir())
    before = read_everything(index)
    pictures[0].write_bytes(pictures[1].read_bytes())
    synced: dict[int, bytes] = {}  # by inode
    states: list[dict[str, str]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not place.is_relative_to(index):
            return
        if place.is_file():
            synced[place.stat().st_ino] = place.read_bytes()
            return
        for path in filter(Path.is_file, place.iterdir()):
            target = disk / path.relative_to(index)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.read_bytes() != path.read_bytes():
                target.write_bytes(synced.get(path.stat().st_ino, b""))
        states.append(read_everything(disk))

    atomic.os.fsync = fsync
    try:
        own.build(index, index_factory=FACTORY)
    finally:
        atomic.os.fsync = real
    after = read_everything(index)
    assert after["descriptors"] != before["descriptors"]
    assert all(state in (before, after) for state in states)
    assert len(states) > 5


def test_fault_05_a_disk_that_is_full_at_any_write(
    own: SmallGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = own.folder / "index"
    before = read_everything(index)
    pictures = sorted((own.shop / "images").iterdir())
    pictures[0].write_bytes(pictures[1].read_bytes())
    real = atomic.commit
    left = 0

    def full(temporary: Path, final: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(final))
        real(temporary, final)

    for writes in range(7):
        left = writes
        with monkeypatch.context() as patch:
            for module in ("training.files", "indexer.store.files"):
                patch.setattr(f"{module}.commit", full)
            with pytest.raises(ResourceError, match="disk is full") as caught:
                own.build(index, index_factory=FACTORY)
        assert caught.value.exit_code == 6
        assert read_everything(index) == before
        assert not list(index.rglob(f"{atomic.TEMPORARY_PREFIX}*"))


def test_fault_05_a_small_disk(own: SmallGallery, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(ResourceError, match=r"disk is full|are free") as caught:
            own.build(disk / "index")
        assert caught.value.exit_code == 6
        assert not list(disk.rglob(f"{atomic.TEMPORARY_PREFIX}*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EROFS])
def test_fault_06_an_error_of_the_disk_names_the_path(
    own: SmallGallery, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(temporary: Path, final: Path) -> None:
        raise OSError(number, os.strerror(number), str(final))

    pictures = sorted((own.shop / "images").iterdir())
    pictures[0].write_bytes(pictures[1].read_bytes())
    monkeypatch.setattr("indexer.store.files.commit", fail)
    with pytest.raises(ResourceError, match=str(own.folder / "index")) as caught:
        own.build(own.folder / "index")
    assert caught.value.exit_code == 6
    assert os.strerror(number).lower() in str(caught.value)
