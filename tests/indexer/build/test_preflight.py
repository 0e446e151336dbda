"""What a build needs is said, near what it then takes, and too little is refused at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_gallery import TinyCheckpoint, build, gallery, tiny_checkpoint, write_images

from indexer.build import version as preflight
from indexer.build.version import check_room
from indexer.progress import Silent
from indexer.store.manifest import Manifest
from indexer.store.store import open_store
from training.datasets.dataset import Dataset
from training.descriptor import DescriptorLayout
from training.errors import ResourceError
from training.schema import Attribute, Schema

COUNT = 20


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def needed(folder: Path, manifest: Manifest, images: int) -> float:
    """Megabytes, as `check_room` says them."""
    line = check_room(folder, manifest, images, images)
    found = re.search(r"need ([0-9,]+) MB in .*, where [0-9,]+ MB are free", line)
    assert found is not None
    return int(found[1].replace(",", ""))


def test_the_disk_that_is_said_is_about_what_is_written(
    tmp_path: Path, checkpoint: TinyCheckpoint
) -> None:
    dataset = replace(gallery(tmp_path, write_images(tmp_path, 300)), payload={})
    build(dataset, checkpoint, tmp_path / "out", shard_rows=300)
    manifest = open_store(tmp_path / "out").manifest
    headers = 4096 * 2  # of HDF5: little where images are many
    written = sum(e.size for e in manifest.files if not e.name.startswith("model"))
    said = needed(tmp_path, manifest, 300_000) * 1e6 / 1000
    assert written - headers < said < 2 * written


def test_of_a_gallery_of_full_size(tmp_path: Path, checkpoint: TinyCheckpoint) -> None:
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 2))
    build(dataset, checkpoint, tmp_path / "out")
    manifest = open_store(tmp_path / "out").manifest
    attributes = (Attribute(a, tuple(f"{a}{n}" for n in range(13))) for a in "abcdefg")
    schema = Schema(tuple(attributes))
    identity = replace(manifest.identity, layout=DescriptorLayout(91, ((-1, 160),)))
    manifest = replace(manifest, identity=identity, schema=schema.to_json())
    paths = 2 * 64  # an image
    assert needed(tmp_path, manifest, 253_983) * 1e6 < (600 + paths) * 253_983


def test_too_little_disk_is_refused_with_its_figures(
    tmp_path: Path, checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(gallery(tmp_path, write_images(tmp_path, 2)), checkpoint, tmp_path / "out")
    manifest = open_store(tmp_path / "out").manifest
    free = SimpleNamespace(free=6 * 10**9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    assert "100 images, 90 to be encoded, need 1 MB" in check_room(tmp_path, manifest, 100, 90)
    assert "where 6,000 MB are free" in check_room(tmp_path, manifest, 100, 90)
    free.free = 10**9
    with pytest.raises(ResourceError, match=r" MB in .*, where 1,000 MB are free.*--out"):
        check_room(tmp_path, manifest, 10**7, 10**7)


def test_a_build_without_room_encodes_nothing_and_keeps_the_old_index(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build(dataset, checkpoint, out)
    before = open_store(out).manifest
    other = tiny_checkpoint(tmp_path / "other", seed=3)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match="free some space"):
        build(dataset, other, out)
    assert other.model.encoded == 0
    assert open_store(out).manifest == before
    assert not list(out.rglob(".tmp-*"))


def test_a_build_says_what_it_takes(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    said = Said()
    build(dataset, checkpoint, tmp_path / "short", progress=said)
    assert any(line.startswith("20 images, 20 to be encoded, need 1 MB") for line in said.lines)
