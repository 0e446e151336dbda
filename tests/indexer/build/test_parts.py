"""Parts that are encoded apart and merged give the bytes of one build, or are refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_gallery import (
    TinyCheckpoint,
    build,
    few,
    tiny_checkpoint,
    tree,
)

from indexer.build.build import BuildReport
from indexer.build.parts import Part, build_part, merge_parts
from indexer.store.manifest import BUILDING_NAME, writer_lock
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, LockedError, UsageError

COUNT = 60  # seven shards of 8, and one of 4


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a file that has just been written is not kept, and manifests would differ."""
    monkeypatch.setattr("training.images.read._TICK_NS", 0)


def encode(
    dataset: Dataset, checkpoint: TinyCheckpoint, out: Path, part: str, **options
) -> BuildReport:
    rows = np.arange(len(dataset))
    return build_part(dataset, rows, checkpoint, out, Part.parse(part), few(**options))


def merge(
    dataset: Dataset, checkpoint: TinyCheckpoint, out: Path, *folders: Path, **options
) -> BuildReport:
    rows = np.arange(len(dataset))
    return merge_parts(dataset, rows, checkpoint, out, folders or (out,), few(**options))


def test_three_processes_of_which_one_is_killed_give_the_bytes_of_one(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "whole")
    out, here = tmp_path / "out", Path(__file__).resolve()
    path = os.pathsep.join([str(here.parents[1]), str(here.parents[3])])
    script = [sys.executable, str(here.parents[1] / "tiny_gallery.py"), str(dataset.root), str(out)]

    def start(number: int) -> subprocess.Popen[bytes]:
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(number)}  # no machine is like another
        return subprocess.Popen([*script, str(COUNT), f"{number}/3"], env=os.environ | own)

    processes = [start(number) for number in (1, 2, 3)]
    try:
        listed, deadline = Part(2, 3).folder(out) / BUILDING_NAME, time.monotonic() + 120
        while not listed.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(processes[1].pid, signal.SIGKILL)  # after one shard of three
        assert [process.wait(120) for process in processes] == [0, -signal.SIGKILL, 0]
    finally:
        for process in processes:
            process.kill()
    report = encode(dataset, tiny_checkpoint(tmp_path / "run"), out, "2/3")
    assert report.kept >= 8
    assert (report.kept + report.encoded, report.listed) == (8 + 8 + 4, 8 + 8 + 4)
    checkpoint.model.encoded = 0
    assert merge(dataset, checkpoint, out).kept == COUNT
    assert checkpoint.model.encoded == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_parts_of_several_machines_are_merged_and_a_missing_one_is_named(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    (dataset.root / dataset.paths[9]).write_text("no picture")
    build(dataset, checkpoint, tmp_path / "whole")
    other = dataclasses.replace(dataset, root=tmp_path / "elsewhere")
    shutil.copytree(dataset.root, other.root)
    first, second, out = (tmp_path / name for name in ("first", "second", "out"))
    encode(dataset, checkpoint, first, "1/2")
    with pytest.raises(DataError, match=r"4 of 8 shards are missing: 1, 3, 5, 7; .*--part 2/2$"):
        merge(dataset, checkpoint, out, first)
    with pytest.raises(DataError, match="no part in"):
        merge(dataset, checkpoint, out)
    assert encode(other, checkpoint, second, "2/2").rejected == 1
    before = tree(first)
    checkpoint.model.encoded = 0
    report = merge(dataset, checkpoint, out, first, second)
    assert (report.images, report.rejected, checkpoint.model.encoded) == (COUNT - 1, 1, 0)
    assert tree(out) == tree(tmp_path / "whole")
    assert tree(first) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model", "model hash3 instead of hash0"),
        ("shard_rows", "shard rows 16 instead of 8"),
        ("images", "images 59 instead of 60"),
        ("order", r"image list \w{12} instead of \w{12}"),
        ("dataset", "dataset shoes instead of tiny"),
    ],
)
def test_parts_of_something_else_are_refused(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, change: str, words: str
) -> None:
    out = tmp_path / "out"
    encode(dataset, checkpoint, out, "1/2")
    other, run, options = dataset, checkpoint, {}
    if change == "model":
        run = tiny_checkpoint(tmp_path / "other", seed=3)
    elif change == "shard_rows":
        options["shard_rows"] = 16
    elif change == "images":
        other = dataset.subset(np.arange(59))
    elif change == "order":
        other = dataset.subset(np.arange(60)[::-1])
    else:
        other = dataclasses.replace(dataset, name="shoes")
    encode(other, run, out, "2/2", **options)
    with pytest.raises(DataError, match=f"2-of-2 was made of something else .*{words}"):
        merge(dataset, checkpoint, out)
    assert not (out / "manifest.json").exists()


def test_a_part_goes_on_and_is_made_anew_where_pictures_have_changed(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    out = tmp_path / "out"
    encode(dataset, checkpoint, out, "1/2")
    encode(dataset, checkpoint, out, "2/2")
    assert encode(dataset, checkpoint, out, "2/2").encoded == 0
    Image.new("RGB", (20, 20), "red").save(dataset.root / dataset.paths[12])
    with pytest.raises(DataError, match=r"1 shards .* have changed .*: 1; .* --part 2/2"):
        merge(dataset, checkpoint, out)
    assert encode(dataset, checkpoint, out, "2/2").encoded == 1
    (shard,) = (Part(1, 2).folder(out) / "shards").glob("00004-*")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"1 shards are damaged, .*: 4; .* --part 1/2"):
        merge(dataset, checkpoint, out)
    assert encode(dataset, checkpoint, out, "1/2").encoded == 8
    shard.rename(tmp_path / shard.name)
    with pytest.raises(CorruptStoreError, match=shard.name):
        merge(dataset, checkpoint, out)
    (tmp_path / shard.name).rename(shard)
    merge(dataset, checkpoint, out)
    build(dataset, checkpoint, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_who_excludes_whom(tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint) -> None:
    """The same part does, another does not; and a build beside it takes nothing away from it."""
    out, part = tmp_path / "out", Part(1, 9)
    (part.folder(out) / "shards").mkdir(parents=True)
    half = part.folder(out) / "shards/.tmp-1-half"
    half.write_text("")
    with writer_lock(part.folder(out)):
        half.write_text("being written")
        with pytest.raises(LockedError):
            encode(dataset, checkpoint, out, "1/9")
        assert encode(dataset, checkpoint, out, "8/9").images == 4
        assert encode(dataset, checkpoint, out, "9/9").images == 0  # there are eight shards
        build(dataset, checkpoint, out)
        assert half.exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/5", "a/b", " 1/2"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="give such as 3/16"):
        Part.parse(text)
