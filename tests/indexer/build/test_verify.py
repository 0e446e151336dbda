"""`verify_index` names what is damaged, and `repair_index` makes it what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import (
    TinyCheckpoint,
    build,
    encodes_more,
    gallery,
    tiny_checkpoint,
    write_images,
)

from indexer.build.edit import remove_images
from indexer.build.shards import listed_plans
from indexer.build.verify import Repair, RepairOptions, repair_index, verify_index
from indexer.progress import Silent
from indexer.search.index import open_search
from indexer.store.manifest import COPY_NAME, MANIFEST_NAME
from indexer.store.store import open_store
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError

COUNT = 20  # in shards of 8, 8 and 4


@pytest.fixture
def index(tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint) -> Path:
    build(dataset, checkpoint, tmp_path / "out", batch_size=32, index_factory="IVF4")
    checkpoint.model.encoded = 0
    return tmp_path / "out"


class _Meanwhile(Silent):
    """Does something when the third file has been checked."""

    def __init__(self, act) -> None:
        self.act, self.checked = act, 0

    def advance(self, count: int) -> None:
        self.checked += count
        if self.checked == 3:
            self.act()


def repaired(index: Path, model: TinyCheckpoint, dataset: Dataset, **more) -> Repair:
    with encodes_more(model):
        return repair_index(index, RepairOptions(lambda _: dataset, **more), Silent())


def contents(index: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(index)): path.read_bytes()
        for path in index.rglob("*")
        if path.is_file() and path.name not in ("lock", MANIFEST_NAME, COPY_NAME)
    }


def flip(path: Path, byte: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[byte % len(content)] ^= 16
    path.write_bytes(content)


def test_an_edit_meanwhile_is_no_damage(index: Path, dataset: Dataset) -> None:
    def remove() -> None:
        remove_images(index, [dataset.paths[1], dataset.paths[9]])

    def spoil() -> None:
        flip(next((index / "shards").iterdir()))

    found = verify_index(index, _Meanwhile(remove))
    assert not found.damaged
    assert found.version.rows == COUNT - 2
    assert verify_index(index, _Meanwhile(lambda: None)).version == found.version
    verify_index(index, _Meanwhile(spoil))
    assert len(verify_index(index).damaged) == 1


def test_a_sound_index(index: Path) -> None:
    found = verify_index(index)
    assert found.damaged == {}
    kinds = [finding.kind for finding in found.findings]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "manifest": 2, "model": 2, "shard": 3, "gallery": 1, "search": 1,
    }  # fmt: skip


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_each_damaged_file_is_named_and_restored(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset, harm: str
) -> None:
    before = contents(index)
    for finding in verify_index(index).findings:
        if finding.kind in ("manifest", "model"):
            continue
        path = index / finding.file
        if harm == "flip":
            flip(path, len(finding.file) * 7)
        elif harm == "cut":
            path.write_bytes(path.read_bytes()[:20])
        else:
            path.unlink()
        assert list(verify_index(index).damaged) == [finding.file]
        done = repaired(index, checkpoint, dataset)
        assert list(done.before.damaged) == [finding.file]
        assert (done.after.damaged, done.why) == ({}, {})
        assert contents(index) == before
    assert checkpoint.model.encoded == 8 + 8 + 4  # each shard once, and it alone


def test_everything_that_follows_is_restored_at_once(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset
) -> None:
    before = contents(index)
    named = verify_index(index).findings
    for finding in named:
        if finding.kind in ("gallery", "search"):
            flip(index / finding.file)
    done = repaired(index, checkpoint, dataset)
    assert len(done.before.damaged) == 2
    assert (done.after.damaged, contents(index)) == ({}, before)


def test_descriptors_that_come_out_otherwise_renew_all_that_depends_on_them(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset, tmp_path: Path
) -> None:
    expected = open_store(index)
    shard = expected.manifest.shards[1]
    flip(index / shard.file.name)
    other = tiny_checkpoint(tmp_path / "run")
    other.model.conv.weight *= 1.02  # as another machine's arithmetic might, but more
    done = repaired(index, other, dataset)
    assert done.after.damaged == {}
    store = open_store(index)
    assert store.manifest.shards[1].file.name != shard.file.name
    assert (store.manifest.shards[0], store.manifest.shards[2]) == (
        expected.manifest.shards[0],
        expected.manifest.shards[2],
    )
    np.testing.assert_array_equal(store.labels(), expected.labels())
    np.testing.assert_array_equal(store.rows, expected.rows)
    assert store.manifest.search.file != expected.manifest.search.file
    descriptors = store.descriptors()
    _, scores = open_search(store).search(descriptors.astype(np.float32), 1, exact=True)
    assert (scores[:, 0] == (descriptors.astype(float) @ descriptors.T.astype(float)).max(0)).all()


def test_what_cannot_be_restored_is_said(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset, tmp_path: Path
) -> None:
    manifest = open_store(index).manifest
    shard, model = manifest.shards[0].file.name, manifest.model_files[0].name
    flip(index / shard)
    shutil.move(dataset.root, tmp_path / "elsewhere")
    done = repaired(index, checkpoint, dataset)
    assert list(done.after.damaged) == [shard]
    assert "8 of its 8 images cannot be read any more" in done.why[shard]
    done = repaired(index, checkpoint, dataset, root=tmp_path / "elsewhere")
    assert done.after.damaged == {}
    flip(index / model)
    done = repaired(index, checkpoint, dataset)
    assert list(done.after.damaged) == [model]
    assert "--checkpoint" in done.why[model]
    assert repaired(index, checkpoint, dataset, checkpoint=tmp_path / "run").after.damaged == {}


def test_an_image_that_changed_is_not_taken_for_the_one_that_was_indexed(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset
) -> None:
    shard = open_store(index).manifest.shards[2].file.name
    flip(index / shard)
    shutil.copy(dataset.root / dataset.paths[0], dataset.root / dataset.paths[17])
    done = repaired(index, checkpoint, dataset)
    assert list(done.after.damaged) == [shard]
    assert "changed" in done.why[shard]


@pytest.mark.parametrize("name", [MANIFEST_NAME, COPY_NAME])
def test_a_damaged_manifest_is_restored_from_the_other(
    index: Path, checkpoint: TinyCheckpoint, dataset: Dataset, name: str
) -> None:
    text = (index / name).read_bytes()
    flip(index / name, 100)
    assert list(verify_index(index).damaged) == [name]
    assert repaired(index, checkpoint, dataset).after.damaged == {}
    assert (index / MANIFEST_NAME).read_bytes() == (index / COPY_NAME).read_bytes() == text
    for each in (MANIFEST_NAME, COPY_NAME):
        flip(index / each, 100)
    with pytest.raises(CorruptStoreError):
        verify_index(index)
    with pytest.raises(DataError):
        verify_index(index / "shards")


@pytest.mark.parametrize("broken", [(0,), (3, 4), (7,), (0, 7), (9, 15)])
def test_the_listing_of_a_shard_is_found_again_with_its_rejects(
    tmp_path: Path, broken: tuple[int, ...]
) -> None:
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", COUNT))
    for number in broken:
        (dataset.root / dataset.paths[number]).write_bytes(b"broken")
    checkpoint = tiny_checkpoint(tmp_path / "run")
    build(dataset, checkpoint, tmp_path / "out", batch_size=32, max_reject_rate=0.5)
    store = open_store(tmp_path / "out")
    plans = listed_plans(store.manifest.shards, store.paths)
    for number, plan in enumerate(plans):
        assert plan.paths == dataset.paths[8 * number : 8 * number + 8]
    before = contents(tmp_path / "out")
    for shard in store.manifest.shards:
        flip(tmp_path / "out" / shard.file.name)
    done = repaired(tmp_path / "out", checkpoint, dataset)
    assert (done.after.damaged, contents(tmp_path / "out")) == ({}, before)
