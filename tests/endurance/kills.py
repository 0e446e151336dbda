"""Faults 1 and 2: `kill -9` at random points of a build, and at every step of a commit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from forked import Ended, run_forked
from read_everything import read_everything
from small_gallery import (
    SmallGallery,
    make_gallery,
    name_of,
    write_labels,
    write_pictures,
)

from indexer.build.edit import add_images, remove_images
from indexer.store.manifest import BUILDING_NAME, MANIFEST_NAME, read_manifest
from training.files import TEMPORARY_PREFIX

_COUNT = 40
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_EVENTS = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}


def random_kills(folder: Path, trials: int, seed: int) -> list[str | None]:
    """Kill a build at a random time and run it again; what went wrong in each trial, if anything.

    Survived: no committed shard is encoded again, no temporary file stays, and the index says just
    what that of an uninterrupted build says.

    Args:
        folder: an empty one to work in.
        trials: kills.
        seed: of the times.
    """
    draw = random.Random(seed)
    gallery = make_gallery(folder, _COUNT)
    started = time.monotonic()
    truth = _told(run_forked(lambda: _build_and_read(gallery, folder / "whole")))
    took = time.monotonic() - started
    return [_random_kill(gallery, draw.uniform(0, took), truth) for _ in range(trials)]


def _random_kill(gallery: SmallGallery, after: float, truth: dict[str, Any]) -> str | None:
    out = gallery.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    killed = run_forked(lambda: gallery.build(out).images, kill_after=after)
    if killed.code not in (0, -signal.SIGKILL):
        return f"after {after:.3f} s: {killed.code} {killed.said}"
    committed = 0
    for name in (BUILDING_NAME, MANIFEST_NAME):
        manifest = read_manifest(out / name)
        committed = max(committed, 0 if manifest is None else manifest.rows)
    resumed = run_forked(lambda: _build_and_read(gallery, out))
    if resumed.code:
        return f"after {after:.3f} s: cannot be resumed: {resumed.code} {resumed.said}"
    if resumed.result["kept"] < committed:
        return f"{committed} images were committed and {resumed.result['kept']} were kept"
    if resumed.result["says"] != truth["says"]:
        return f"after {after:.3f} s: the resumed index is not that of a whole build"
    return _left_over(out)


def killed_steps(folder: Path, trials: int, seed: int) -> list[str | None]:
    """Kill rebuilding, adding and removing just before a step that changes the disk; likewise.

    Steps are opening a file to write, fsync, renaming, removing, and making a folder. Survived: the
    index says what it said before or what it says afterwards; done again, the latter.

    Args:
        folder: an empty one to work in.
        trials: kills, spread evenly over the steps of the three; 0: one at every step.
        seed: which steps.
    """
    draw = random.Random(seed)
    gallery = make_gallery(folder, _COUNT)
    _told(run_forked(lambda: gallery.build(folder / "old").images))
    write_pictures(gallery.shop, range(_COUNT, _COUNT + 4))
    found: list[str | None] = []
    old, out = folder / "old", folder / "out"
    before = _told(run_forked(lambda: read_everything(old)))
    for work in _changes(gallery):
        _fresh_copy(old, out)
        steps = _told(run_forked(partial(_counted, work, out)))
        after = _told(run_forked(lambda: read_everything(out)))
        points = list(range(steps))
        if trials:
            points = sorted(draw.sample(points, min(steps, -(-trials // 3))))
        for step in points:
            _fresh_copy(old, out)
            found.append(_killed_at(work, out, step, before, after))
    return found


def _changes(gallery: SmallGallery) -> list[Callable[[Path], Any]]:
    def rebuild(out: Path) -> None:
        write_labels(gallery.shop, [_COUNT, *range(3, _COUNT), _COUNT + 1])
        gallery.build(out)

    def add(out: Path) -> None:
        add_images(out, [name_of(_COUNT), name_of(_COUNT + 1)])

    def remove(out: Path) -> None:
        remove_images(out, [name_of(0), name_of(30)])

    return [rebuild, add, remove]


def _killed_at(
    work: Callable[[Path], Any],
    out: Path,
    step: int,
    before: dict[str, Any],
    after: dict[str, Any],
) -> str | None:
    killed = run_forked(lambda: _counted(work, out, step))
    if killed.code != -signal.SIGKILL:
        return f"step {step}: not killed but {killed.code} {killed.said}"
    found = run_forked(lambda: read_everything(out))
    if found.code or found.result not in (before, after):
        return f"step {step}: neither the old nor the new state: {found.code} {found.said}"
    if found.result == after:
        return None
    again = run_forked(lambda: _again(work, out))
    if again.code or again.result != after:
        return f"step {step}: done again: {again.code} {again.said}"
    return _left_over(out)


def _again(work: Callable[[Path], Any], out: Path) -> dict[str, str]:
    work(out)
    return read_everything(out)


def _counted(work: Callable[[Path], Any], out: Path, kill_at: int = -1) -> int:
    """Do some work and count the steps by which it changes the disk; in a child, for good.

    Args:
        work: what to do.
        out: steps elsewhere do not count.
        kill_at: the step, from 0, just before which this process is killed.
    """
    count = 0
    inside = str(out)

    def step() -> None:
        nonlocal count
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, flags = arguments[0], arguments[2]
            if str(path).startswith(inside) and isinstance(flags, int) and flags & _WRITING:
                step()
        elif event in _EVENTS and str(arguments[0]).startswith(inside):
            step()

    real = os.fsync

    def fsync(fd: Any) -> None:
        step()
        real(fd)

    sys.addaudithook(heard)
    os.fsync = fsync
    work(out)
    return count


def _build_and_read(gallery: SmallGallery, out: Path) -> dict[str, Any]:
    report = gallery.build(out)
    return {"kept": report.kept, "says": read_everything(out)}


def _told(ended: Ended) -> Any:
    """What a child that has to succeed returned."""
    if ended.code or ended.hung:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return ended.result


def _fresh_copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _left_over(folder: Path) -> str | None:
    left = [path.name for path in folder.rglob(f"{TEMPORARY_PREFIX}*")]
    return f"temporary files stay: {left}" if left else None
