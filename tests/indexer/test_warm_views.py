"""The warm set: budget, order, damage, other maps, other processes, folders that cannot be written.

`python test_warm_views.py FOLDER SEED` is a process that saves and loads at random.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clustered import clustered
from numpy.typing import NDArray
from tiny_gallery import SCHEMA, gallery, tiny_checkpoint, write_images
from tiny_gallery import build as build_tiny

from indexer.atomic import remove_temporaries
from indexer.committed import COPY_NAME
from indexer.flat_file import flat_header
from indexer.manifest import MANIFEST_NAME
from indexer.store import open_store
from indexer.views import NamedCondition, named
from indexer.warm_views import FOLDER, Kept, WarmViews

ROWS, DIM = 50, 8
SIZE = ROWS * DIM * 4 + 45
CONDITIONS = [named(SCHEMA, SCHEMA.value_condition([v])) for v in range(SCHEMA.size)]


def vectors_of(number: int) -> NDArray[np.float32]:
    return clustered(ROWS, DIM, seed=number)


def saved(warm: WarmViews, number: int) -> NamedCondition:
    assert warm.save(CONDITIONS[number], vectors_of(number), 1.5) == Kept(True)
    return CONDITIONS[number]


def keys(warm: WarmViews) -> list[int]:
    """Numbers of the conditions that are there, the last used first."""
    numbers = {c.key: n for n, c in enumerate(CONDITIONS)}
    return [numbers[entry.key] for entry in warm.list()]


@pytest.fixture
def warm(tmp_path: Path) -> WarmViews:
    return WarmViews(tmp_path, "maps", 3 * SIZE)


def test_what_is_saved_is_loaded(warm: WarmViews, tmp_path: Path) -> None:
    assert len(flat_header(ROWS, DIM)) == 45
    absent = named(SCHEMA, SCHEMA.condition(["floral"], ["v"]))
    assert warm.load(absent.key) is None
    assert warm.list() == ()
    assert warm.save(absent, vectors_of(0), 1.5).kept
    again = WarmViews(tmp_path, "maps", 3 * SIZE)
    (entry,) = again.list()
    assert (entry.key, entry.name, entry.seconds) == (absent.key, absent.name, 1.5)
    assert (entry.rows, entry.dim, entry.file.size) == (ROWS, DIM, SIZE)
    assert (entry.present, entry.absent) == (
        tuple(np.flatnonzero(absent.condition == 1)),
        tuple(np.flatnonzero(absent.condition == -1)),
    )
    view = again.load(absent.key)
    assert view is not None
    np.testing.assert_array_equal(view.vectors, vectors_of(0))
    assert view.name == absent.name
    assert again.drop(absent.key)
    assert not again.drop(absent.key)
    np.testing.assert_array_equal(view.vectors, vectors_of(0))  # still mapped


def test_parts_are_one_view(warm: WarmViews) -> None:
    parts = np.split(vectors_of(1), [7, 30])
    assert warm.save(CONDITIONS[1], iter(parts), rows=ROWS).kept
    view = warm.load(CONDITIONS[1].key)
    assert view is not None
    np.testing.assert_array_equal(view.vectors, vectors_of(1))
    assert warm.list()[0].seconds >= 0


def test_the_least_recently_used_go_first(warm: WarmViews, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        saved(warm, number)
    assert keys(warm) == [2, 1, 0]
    warm.touch(CONDITIONS[0].key)
    assert keys(warm) == [0, 2, 1]
    saved(warm, 3)  # 1 goes
    assert keys(warm) == [3, 0, 2]
    assert warm.load(CONDITIONS[2].key) is not None
    saved(warm, 4)  # 0 goes
    assert keys(warm) == [4, 2, 3]
    saved(warm, 2)  # again: nothing else goes
    assert keys(warm) == [2, 4, 3]
    assert len(list((tmp_path / FOLDER).iterdir())) == 2 * 3 + 1
    smaller = WarmViews(tmp_path, "maps", 2 * SIZE)
    saved(smaller, 0)
    assert keys(smaller) == [0, 2]
    assert smaller.clear() == 2
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["lock"]


def test_a_view_over_the_budget_is_not_kept(tmp_path: Path) -> None:
    for budget in (0, SIZE - 1):
        warm = WarmViews(tmp_path, "maps", budget)
        found = warm.save(CONDITIONS[0], vectors_of(0), 1.0)
        assert not found.kept
        assert f"{SIZE:,} bytes are over the budget of {budget:,}" in found.why
    assert not (tmp_path / FOLDER).exists()
    saved(WarmViews(tmp_path, "maps", SIZE), 0)


def test_every_flipped_byte_is_ignored_and_removed_at_the_next_write(
    warm: WarmViews, tmp_path: Path
) -> None:
    generator = random.Random(0)
    caught = 0
    for trial in range(40):
        warm.clear()
        saved(warm, 0), saved(warm, 1)
        paths = sorted((tmp_path / FOLDER).glob(f"{CONDITIONS[0].key}*"))
        assert len(paths) == 2
        path = paths[trial % 2]
        content = bytearray(path.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        assert warm.load(CONDITIONS[0].key) is None
        caught += 1
        assert keys(warm) == [1]
        saved(warm, 2)
        assert not any(path.exists() for path in paths)
        assert keys(warm) == [2, 1]
    assert caught == 40


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_broken_sidecars(warm: WarmViews, tmp_path: Path, content: bytes) -> None:
    key = saved(warm, 0).key
    (tmp_path / FOLDER / f"{key}.json").write_bytes(content)
    assert warm.load(key) is None
    assert warm.list() == ()
    warm.clean()
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["lock"]


def test_sidecars_that_name_other_files(warm: WarmViews, tmp_path: Path) -> None:
    """Signed as they should be, and still not believed."""
    from indexer.warm_entry import write_entry

    (tmp_path / "secret.faiss").write_bytes(b"x" * SIZE)
    key = saved(warm, 0).key
    (entry,) = warm.list()
    path = tmp_path / FOLDER / f"{key}.json"
    for name in ("../secret.faiss", "/etc/passwd", f"{key}-{'0' * 12}.faiss"):
        file = dataclasses.replace(entry.file, name=name)
        path.write_bytes(write_entry(dataclasses.replace(entry, file=file)))
        assert warm.load(key) is None
    for change in ({"key": "0" * 16}, {"rows": -1}, {"rows": ROWS + 1}, {"dim": 2.0}):
        path.write_bytes(write_entry(dataclasses.replace(entry, **change)))
        assert warm.load(key) is None
    warm.clean()
    assert (tmp_path / "secret.faiss").exists()


def test_stray_files_go_and_foreign_ones_stay(warm: WarmViews, tmp_path: Path) -> None:
    saved(warm, 0)
    folder = tmp_path / FOLDER
    ours = [folder / f"{'a' * 16}-{'b' * 12}.faiss", folder / f"{'a' * 16}.json"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours.append(folder / f".tmp-{dead.pid}-abc")
    foreign = [folder / "notes.txt", folder / "x.faiss", folder / f".tmp-{os.getpid()}-abc"]
    for path in ours + foreign:
        path.write_bytes(b"x")
    saved(warm, 1)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in foreign)


def test_other_maps_are_ignored_and_removed(warm: WarmViews, tmp_path: Path) -> None:
    key = saved(warm, 0).key
    other = WarmViews(tmp_path, "other maps", 3 * SIZE)
    assert other.load(key) is None
    assert other.list() == ()
    saved(other, 1)
    assert keys(warm) == []
    assert keys(other) == [1]


def test_a_build_keeps_the_warm_set_of_the_same_maps(tmp_path: Path) -> None:
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 20))
    out = tmp_path / "out"
    build_tiny(dataset, tiny_checkpoint(tmp_path / "run"), out)
    store = open_store(out)
    warm = WarmViews(out, store.manifest.content)
    saved(warm, 0)
    (out / FOLDER / f"{'a' * 16}.json").write_text("{}")
    build_tiny(dataset, tiny_checkpoint(tmp_path / "run"), out, views=("types", "none"))
    assert keys(warm) == [0]
    assert not (out / FOLDER / f"{'a' * 16}.json").exists()
    build_tiny(dataset, tiny_checkpoint(tmp_path / "other", seed=1), out)
    assert keys(warm) == []
    assert [p.name for p in (out / FOLDER).iterdir()] == ["lock"]
    # The reader of the old version does not bring its views into the new one.
    new = WarmViews(out, open_store(out).manifest.content)
    saved(new, 1)
    assert warm.save(CONDITIONS[2], vectors_of(2), 1.0) == Kept(
        False, "the index has been built anew since it was opened"
    )
    assert keys(new) == [1]
    (out / MANIFEST_NAME).write_text("damaged")
    assert new.save(CONDITIONS[2], vectors_of(2), 1.0).kept  # by the copy
    (out / COPY_NAME).write_text("damaged")
    assert not new.save(CONDITIONS[2], vectors_of(2), 1.0).kept


def test_a_folder_that_cannot_be_written_has_no_warm_set(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("no folder")  # permissions do not stop a superuser
    warm = WarmViews(tmp_path, "maps")
    assert warm.list() == ()
    assert warm.load(CONDITIONS[0].key) is None
    warm.touch(CONDITIONS[0].key)
    warm.clean()
    assert warm.clear() == 0
    found = warm.save(CONDITIONS[0], vectors_of(0), 1.0)
    assert not found.kept
    assert found.why.startswith("cannot write")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop a superuser")
def test_a_read_only_folder(warm: WarmViews, tmp_path: Path) -> None:
    key = saved(warm, 0).key
    (tmp_path / FOLDER).chmod(0o500)
    try:
        assert warm.load(key) is not None
        assert not warm.save(CONDITIONS[1], vectors_of(1), 1.0).kept
    finally:
        (tmp_path / FOLDER).chmod(0o700)


def test_a_view_whose_file_a_builder_takes_away_is_not_kept(
    warm: WarmViews, tmp_path: Path
) -> None:
    def parts():
        yield vectors_of(0)[:10]
        remove_temporaries(tmp_path)  # a build that starts meanwhile
        yield vectors_of(0)[10:]

    assert not warm.save(CONDITIONS[0], parts(), rows=ROWS).kept
    assert warm.list() == ()


def test_processes_share_a_warm_set(tmp_path: Path) -> None:
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[2])])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(here), str(tmp_path), str(seed)], env=env, stdout=subprocess.PIPE
        )
        for seed in range(2)
    ]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(report["wrong"] == 0 for report in found)
    assert all(report["loaded"] > 0 for report in found)
    warm = WarmViews(tmp_path, "maps", 3 * SIZE)
    entries = warm.list()
    assert 1 <= len(entries) <= 3
    names = {p.name for p in (tmp_path / FOLDER).iterdir()} - {"lock"}
    assert names == {e.file.name for e in entries} | {f"{e.key}.json" for e in entries}
    assert all(warm.load(entry.key) is not None for entry in entries)


def _work(folder: Path, seed: int) -> None:
    warm = WarmViews(folder, "maps", 3 * SIZE)
    generator = random.Random(seed)
    report = {"loaded": 0, "wrong": 0}
    for _ in range(60):
        number = generator.randrange(len(CONDITIONS))
        view = warm.load(CONDITIONS[number].key)
        if view is None:
            kept = warm.save(CONDITIONS[number], vectors_of(number), 1.0)
            report["wrong"] += not kept.kept
        else:
            report["loaded"] += 1
            report["wrong"] += not np.array_equal(view.vectors, vectors_of(number))
    print(json.dumps(report))


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]))
