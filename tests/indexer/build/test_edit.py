"""Adding and removing single images: the index equals one built from the changed list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_incremental import assert_equal
from tiny_gallery import (
    SCHEMA,
    TinyCheckpoint,
    build,
    encodes_more,
    gallery,
    tiny_checkpoint,
    write_images,
)

from indexer.build import edit, version
from indexer.build.build import BuildOptions, build_index
from indexer.build.edit import EditReport, add_images, remove_images
from indexer.search.index import open_search
from indexer.store.manifest import BUILDING_NAME, read_manifest, writer_lock
from indexer.store.store import open_store
from training.datasets.dataset import Dataset
from training.errors import DataError, LockedError, ResourceError, UsageError

COUNT = 30


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    paths = write_images(tmp_path / "data", COUNT + 10)
    return gallery((tmp_path / "data").resolve(), paths)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[TinyCheckpoint]:
    checkpoint = tiny_checkpoint(tmp_path / "run")
    with encodes_more(checkpoint):
        yield checkpoint


def part(dataset: Dataset, rows: list[int]) -> Dataset:
    """Some images of a dataset, in that order."""
    return dataset.subset(np.array(rows, dtype=np.int64))


def forget(dataset: Dataset) -> None:
    """Of images from COUNT on, all but the labels: as an added image is known."""
    dataset.splits[COUNT:], dataset.items[COUNT:] = "", -1
    for cells in dataset.payload.values():
        cells[COUNT:] = [""] * (len(dataset) - COUNT)


def test_added_images_come_last_and_only_they_are_encoded(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    first = part(dataset, list(range(COUNT)))
    build(first, checkpoint, tmp_path / "out")
    checkpoint.model.encoded = 0
    states = SCHEMA.condition(present=["floral"], absent=["v"])
    report = add_images(tmp_path / "out", dataset.paths[COUNT : COUNT + 4], states)
    assert report == EditReport(4, 0, 0, 0, COUNT + 4)
    assert checkpoint.model.encoded == 4
    longer = part(dataset, list(range(COUNT + 4)))
    longer.labels[COUNT:] = states
    forget(longer)
    build(longer, checkpoint, tmp_path / "fresh")
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))
    assert add_images(tmp_path / "out", dataset.paths[:COUNT]).unchanged == COUNT
    # The next build of that list keeps all of it.
    assert build(longer, checkpoint, tmp_path / "out").encoded == 0


def test_one_after_another_fills_the_last_shard(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit, "rows_a_shard", lambda images: 8)
    build(part(dataset, list(range(COUNT))), checkpoint, tmp_path / "out")
    for row in range(COUNT, COUNT + 10):
        add_images(tmp_path / "out", [dataset.paths[row]])
    store = open_store(tmp_path / "out")
    assert [s.rows for s in store.manifest.shards] == [8, 8, 8, 8, 8]
    fresh = part(dataset, list(range(COUNT + 10)))
    fresh.labels[COUNT:] = 0
    forget(fresh)
    build(fresh, checkpoint, tmp_path / "fresh")
    assert_equal(store, open_store(tmp_path / "fresh"))


def test_removed_images_leave_no_trace(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    dataset.paths[5] = dataset.paths[12]  # one image twice: both rows go
    build(dataset, checkpoint, tmp_path / "out")
    checkpoint.model.encoded = 0
    gone = [0, 12, *range(16, 24), 39]  # of them a whole shard
    report = remove_images(tmp_path / "out", [dataset.paths[row] for row in gone])
    assert (report.removed, report.images) == (12, COUNT + 10 - 12)
    assert checkpoint.model.encoded == 0
    left = np.array([row for row in range(COUNT + 10) if row not in {5, *gone}])
    build_index(
        dataset, left, checkpoint, tmp_path / "fresh", options=BuildOptions(runtime="torch")
    )
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))


def test_a_changed_image_keeps_its_row_and_its_labels(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    first = part(dataset, list(range(COUNT)))
    build(first, checkpoint, tmp_path / "out")
    content = (dataset.root / dataset.paths[COUNT]).read_bytes()
    (dataset.root / dataset.paths[11]).write_bytes(content)
    checkpoint.model.encoded = 0
    report = add_images(tmp_path / "out", [dataset.paths[11], dataset.paths[12]])
    assert report == EditReport(0, 1, 1, 0, COUNT)
    assert checkpoint.model.encoded == 1
    build(first, checkpoint, tmp_path / "fresh")
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))
    states = SCHEMA.condition(present=["v"])
    checkpoint.model.encoded = 0
    assert add_images(tmp_path / "out", [dataset.paths[11]], states).changed == 1
    assert checkpoint.model.encoded == 0  # labels need no encoding
    first.labels[11][:2] = states[:2]  # of the neck
    build(first, checkpoint, tmp_path / "fresh")
    assert_equal(open_store(tmp_path / "out"), open_store(tmp_path / "fresh"))


def test_what_is_not_stated_of_an_image_stays_as_it_was(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    first = part(dataset, list(range(COUNT)))
    first.labels[11] = SCHEMA.condition(present=["round", "floral"], absent=["v"])
    build(first, checkpoint, tmp_path / "out")
    where = SCHEMA.slice_of(SCHEMA.attribute("neck"))
    stated = np.zeros(SCHEMA.size, np.int8)
    stated[where] = np.where(SCHEMA.condition(present=["v"])[where] == 1, 1, -1)
    assert add_images(tmp_path / "out", [dataset.paths[11]], stated).changed == 1
    expected = SCHEMA.condition(present=["v", "floral"], absent=["round"])
    assert np.array_equal(open_store(tmp_path / "out").labels()[11], expected)
    assert add_images(tmp_path / "out", [dataset.paths[11]], stated).unchanged == 1


def test_rejects_stay_listed_until_they_are_added(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    broken = dataset.root / dataset.paths[9]
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    build(dataset, checkpoint, tmp_path / "out")
    remove_images(tmp_path / "out", [dataset.paths[10]])
    assert [r.path for r in open_store(tmp_path / "out").manifest.rejects] == [dataset.paths[9]]
    with pytest.raises(DataError, match=r"0009\.jpg: .*nothing was added"):
        add_images(tmp_path / "out", [dataset.paths[9]])
    with pytest.raises(DataError, match=r"0009\.jpg is not in the index .*nearest: pic/00"):
        remove_images(tmp_path / "out", [dataset.paths[9]])
    broken.write_bytes(whole)
    assert add_images(tmp_path / "out", [dataset.paths[9]]).added == 1
    store = open_store(tmp_path / "out")
    assert store.paths[-1] == dataset.paths[9]
    store.check()


def test_inverted_lists_are_extended(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    first = part(dataset, list(range(COUNT)))
    build(first, checkpoint, tmp_path / "out", index_factory="IVF4", recall=0.5)
    add_images(tmp_path / "out", dataset.paths[COUNT:])
    remove_images(tmp_path / "out", dataset.paths[:3])
    store = open_store(tmp_path / "out")
    store.check()
    assert store.manifest.search.factory == "IVF4"
    descriptors = store.descriptors()
    weights = descriptors.astype(np.float32) - 127
    rows, _ = open_search(store).search(weights, 37, exact=True)
    scores = descriptors.astype(float) @ weights.T.astype(float)
    for query in range(37):
        assert rows[query].tolist() == np.lexsort((np.arange(37), -scores[:, query])).tolist()


def test_payload_and_items_follow_an_edit(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(part(dataset, list(range(COUNT))), checkpoint, tmp_path / "out")
    add_images(tmp_path / "out", dataset.paths[COUNT : COUNT + 2])
    remove_images(tmp_path / "out", dataset.paths[:1])
    store = open_store(tmp_path / "out")
    cells = [store.payload["sku"].text(row) for row in range(len(store))]
    assert cells == [*(f"sku {row}" for row in range(1, COUNT)), "", ""]
    assert store.items().tolist() == [*(row // 2 for row in range(1, COUNT)), -1, -1]


def test_an_edit_that_fails_changes_nothing(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build(part(dataset, list(range(COUNT))), checkpoint, out)
    before = read_manifest(out / "manifest.json")
    with pytest.raises(DataError, match="leaves the dataset's folder"):
        add_images(out, ["../x.jpg"])
    with pytest.raises(DataError, match="no such file"):
        add_images(out, [dataset.paths[COUNT], "none.jpg"])
    with pytest.raises(UsageError, match="no image would be left"):
        remove_images(out, dataset.paths[:COUNT])
    with pytest.raises(DataError, match="no index in"):
        remove_images(tmp_path / "none", ["a.jpg"])

    def full(*arguments: object) -> None:
        raise ResourceError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(version, "write_gallery", full)
        with pytest.raises(ResourceError):
            add_images(out, [dataset.paths[COUNT]])
    assert read_manifest(out / "manifest.json") == before
    open_store(out).check()
    add_images(out, [dataset.paths[COUNT]])
    open_store(out).check()


def test_an_edit_keeps_what_an_interrupted_build_has_done(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    out, other = tmp_path / "out", tiny_checkpoint(tmp_path / "other", seed=1)
    build(dataset, checkpoint, out)

    class Stop(Exception):
        pass

    class Listener:
        def start(self, stage: str, total: int) -> None: ...
        def say(self, message: str) -> None: ...
        def advance(self, count: int) -> None:
            if other.model.encoded > 20:
                raise Stop

    with pytest.raises(Stop):
        build(dataset, other, out, progress=Listener())
    assert (out / BUILDING_NAME).exists()
    remove_images(out, dataset.paths[:1])
    assert build(dataset, other, out).kept == 16


def test_a_held_lock_is_respected(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "out")
    with writer_lock(tmp_path / "out"), pytest.raises(LockedError):
        remove_images(tmp_path / "out", dataset.paths[:1])
