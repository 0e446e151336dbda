"""What images do to a build: broken ones, changing ones, twins (faults 21, 24, 25)."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from malformed_images import DISGUISES
from tiny_gallery import TinyCheckpoint, build, gallery, tiny_checkpoint, write_images

from indexer.store.store import open_store
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images import batches as decoding
from training.images.read import ImageFile, read_image_file


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return gallery(tmp_path, write_images(tmp_path, 20))


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return tiny_checkpoint(tmp_path / "run")


def bytes_of(folder: Path) -> np.ndarray:
    return open_store(folder).descriptors().astype(int)


def test_fault_21_broken_images_are_skipped_listed_counted_and_limited(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    broken = dataset.paths[2:9]
    for path, content in zip(broken, DISGUISES.values(), strict=True):
        (dataset.root / path).write_bytes(content)
    with pytest.raises(DataError, match="7 of 20 images") as refusal:
        build(dataset, checkpoint, tmp_path / "out", max_reject_rate=0.34)
    assert refusal.value.exit_code == 3
    report = build(dataset, checkpoint, tmp_path / "out", max_reject_rate=0.35)
    assert (report.listed, report.images, report.rejected) == (20, 13, 7)
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == broken
    assert all("not an image" in json.loads(line)["reason"] for line in lines)


def test_fault_21_an_image_that_is_mended_is_encoded_at_the_next_build(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    expected_report = build(dataset, checkpoint, tmp_path / "expected")
    target = dataset.root / dataset.paths[3]
    whole = target.read_bytes()
    target.write_bytes(whole[:300])
    assert build(dataset, checkpoint, tmp_path / "out").rejected == 1
    target.write_bytes(whole)
    report = build(dataset, checkpoint, tmp_path / "out")
    assert (report.images, report.rejected) == (expected_report.images, 0)
    np.testing.assert_allclose(bytes_of(tmp_path / "out"), bytes_of(tmp_path / "expected"), atol=1)


def test_fault_24_one_image_and_twins_have_defined_results(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    one = gallery(dataset.root, dataset.paths[:1])
    assert build(one, checkpoint, tmp_path / "one").images == 1
    twins = gallery(dataset.root, dataset.paths[:1] * 3)
    assert build(twins, checkpoint, tmp_path / "twins").images == 3
    found = bytes_of(tmp_path / "twins")
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("keeps_its_times", [False, True])
def test_fault_25_an_image_that_changes_during_the_build_is_encoded_anew_at_the_next(
    tmp_path: Path,
    dataset: Dataset,
    checkpoint: TinyCheckpoint,
    monkeypatch: pytest.MonkeyPatch,
    keeps_its_times: bool,
) -> None:
    """Right after its bytes are read, a picture of the same size and times takes its place."""
    target = dataset.root / dataset.paths[10]
    old = target.read_bytes()
    new = bytearray(old)
    new[-60:-40] = bytes(20)  # coefficients: another picture of as many bytes
    time.sleep(0.15)  # else the files are so fresh that their times are not trusted at all

    def read_and_change(path: Path) -> ImageFile:
        file = read_image_file(path)
        if path == target and file.content == old:
            before = target.stat()
            target.write_bytes(new)
            if keeps_its_times:
                os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        return file

    monkeypatch.setattr(decoding, "read_image_file", read_and_change)
    first = build(dataset, checkpoint, tmp_path / "out")
    monkeypatch.undo()
    assert (first.encoded, target.read_bytes()) == (20, bytes(new))
    before = bytes_of(tmp_path / "out").copy()  # of the old picture, whose digest stands beside it
    second = build(dataset, checkpoint, tmp_path / "out")
    assert second.kept >= 12
    assert 1 <= second.encoded <= 8
    build(dataset, checkpoint, tmp_path / "fresh")
    after = bytes_of(tmp_path / "out")
    np.testing.assert_allclose(after, bytes_of(tmp_path / "fresh"), atol=1)
    changed = (after != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [10]
    assert build(dataset, checkpoint, tmp_path / "out").encoded == 0


def test_fault_25_the_digest_is_of_the_bytes_that_were_decoded(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "out")
    store = open_store(tmp_path / "out")
    found = [bytes(d) for shard in store.shards for d in shard.rows.digests]
    contents = [(dataset.root / path).read_bytes() for path in dataset.paths]
    assert found == [hashlib.sha256(content).digest() for content in contents]
