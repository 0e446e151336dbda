"""A changed gallery: only what is new goes through the model, and the result is a fresh build's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import TinyCheckpoint, build, gallery, write_images

from indexer.build.shards import EncodedImages
from indexer.store.gallery import PathList
from indexer.store.shard import ShardRows, write_shard
from indexer.store.store import Store, open_store
from training.datasets.dataset import Dataset

COUNT = 30


def assert_equal(found: Store, expected: Store) -> None:
    """Rows and labels to the letter, descriptors but for the last bit of a batch."""
    found.check()
    assert list(found.paths) == list(expected.paths)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.labels(), expected.labels())
    np.testing.assert_array_equal(found.gallery.splits, expected.gallery.splits)
    np.testing.assert_array_equal(found.digests(), expected.digests())
    np.testing.assert_array_equal(found.items(), expected.items())
    for name, column in expected.payload.items():
        assert list(found.payload[name].cells) == list(column.cells)
    difference = found.descriptors().astype(int) - expected.descriptors()
    assert np.abs(difference).max() <= 1


def changed(dataset: Dataset, kind: str) -> tuple[list[str], int]:
    """Another list of paths, and how many of its images are new."""
    paths, root = list(dataset.paths), dataset.root
    write_images(root / "more", 40)
    new = [f"more/pic/{n:04d}.jpg" for n in range(COUNT, 40)]
    if kind == "inserted at the front":
        return [new[0], *paths], 1
    if kind == "appended":
        return [*paths, *new], 10
    if kind == "removed":
        return [p for n, p in enumerate(paths) if n not in (0, 13, 29)], 0
    if kind == "shuffled":
        return np.random.default_rng(0).permutation(paths).tolist(), 0
    if kind == "renamed":
        shutil.move(root / paths[3], root / "another name.jpg")
        return [*paths[:3], "another name.jpg", *paths[4:]], 0
    if kind == "all at once":
        (root / paths[8]).write_bytes((root / new[1]).read_bytes())
        (root / paths[20]).write_text("broken")
        return [new[2], *paths[2:15], *paths[16:], paths[1], new[3]], 3
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    ["inserted at the front", "appended", "removed", "shuffled", "renamed", "all at once"],
)
def test_only_what_is_new_is_encoded(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, kind: str
) -> None:
    build(dataset, checkpoint, tmp_path / "out")
    paths, new = changed(dataset, kind)
    after = gallery(dataset.root, paths)
    checkpoint.model.encoded = 0
    report = build(after, checkpoint, tmp_path / "out")
    assert (checkpoint.model.encoded, report.encoded) == (new, new)
    assert report.kept == len(paths) - new - report.rejected
    build(after, checkpoint, tmp_path / "fresh")
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))
    assert build(after, checkpoint, tmp_path / "out").encoded == 0


def test_another_size_of_shards_copies_all(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "out")
    assert build(dataset, checkpoint, tmp_path / "out", shard_rows=11).encoded == 0
    build(dataset, checkpoint, tmp_path / "fresh", shard_rows=11)
    found, expected = open_store(tmp_path / "out"), open_store(tmp_path / "fresh")
    assert_equal(found, expected)
    assert [s.rows for s in found.manifest.shards] == [11, 11, 8]


def test_images_of_a_damaged_shard_are_encoded_anew(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "out")
    entry = open_store(tmp_path / "out").manifest.shards[1].file
    assert entry is not None
    damaged = bytearray((tmp_path / "out" / entry.name).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "out" / entry.name).write_bytes(damaged)
    after = gallery(dataset.root, dataset.paths[1:])
    assert build(after, checkpoint, tmp_path / "out").encoded == 8
    build(after, checkpoint, tmp_path / "fresh")
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))


def test_digests_are_found_by_all_of_their_bytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    table = generator.integers(0, 256, (50, 32)).astype(np.uint8)
    table[7] = table[3]
    asked = table[[9, 7, 0, 49]].copy()
    asked[0, 31] ^= 1
    paths, listed = PathList.of(map(str, range(50))), np.arange(50, dtype=np.int32)
    rows = ShardRows(np.zeros((50, 16), np.uint8), table, listed, paths)
    images = EncodedImages(tmp_path, [write_shard(tmp_path, 0, rows)])
    assert images.find(asked).tolist() == [-1, 3, 0, 49]
    assert EncodedImages(tmp_path).find(asked).tolist() == [-1] * 4
