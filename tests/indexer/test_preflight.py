"""What a build needs is said, near what it then takes, and too little is refused at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_gallery import TinyCheckpoint, build, gallery, tiny_checkpoint, write_images

from indexer import preflight
from indexer.encode import torch_forward
from indexer.preflight import check_room, disk_needed, in_words, seconds_to_encode
from indexer.progress import Silent
from indexer.store import open_store
from training.datasets.dataset import Dataset
from training.descriptor import DescriptorLayout
from training.errors import ResourceError
from training.schema import Attribute, Schema


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return gallery(tmp_path / "data", write_images(tmp_path / "data", 20))


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return tiny_checkpoint(tmp_path / "run")


def test_the_disk_that_is_said_is_about_what_is_written(
    tmp_path: Path, checkpoint: TinyCheckpoint
) -> None:
    dataset = replace(gallery(tmp_path, write_images(tmp_path, 300)), payload={})
    build(dataset, checkpoint, tmp_path / "out", shard_rows=300)
    manifest = open_store(tmp_path / "out").manifest
    needed = disk_needed(manifest, 300, 300)
    headers = 4096 * 2  # of HDF5: little where images are many
    written = sum(e.size for e in manifest.files if not e.name.startswith("model"))
    assert written - headers < needed < 2 * written


def test_of_a_gallery_of_full_size(tmp_path: Path, checkpoint: TinyCheckpoint) -> None:
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 2))
    build(dataset, checkpoint, tmp_path / "out")
    manifest = open_store(tmp_path / "out").manifest
    attributes = (Attribute(a, tuple(f"{a}{n}" for n in range(13))) for a in "abcdefg")
    schema = Schema(tuple(attributes))
    identity = replace(manifest.identity, layout=DescriptorLayout(91, ((-1, 160),)))
    manifest = replace(manifest, identity=identity, schema=schema.to_json())
    paths = 2 * 64  # an image
    assert disk_needed(manifest, 253_983, 253_983) < (600 + paths) * 253_983


def test_too_little_disk_is_refused_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=6 * 10**9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    line = check_room(5 * 10**9, tmp_path)
    assert "5 GB" in line
    assert "6 GB are free" in line
    assert "needs 41.7 KB in" in check_room(41_700, tmp_path)
    free.free = 10**9
    with pytest.raises(ResourceError, match=r"5 GB in .*, where 1 GB are free.*--out"):
        check_room(5 * 10**9, tmp_path)


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


def test_a_long_build_says_how_long_first(
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    build(dataset, checkpoint, tmp_path / "short", progress=said)
    assert any(line.startswith("20 images, 20 to be encoded") for line in said.lines)
    assert not any("encoding will take" in line for line in said.lines)
    monkeypatch.setattr("indexer.build.PROBE_FROM", 10)
    build(dataset, checkpoint, tmp_path / "long", progress=said)
    assert any("encoding will take about" in line for line in said.lines)


def test_the_time_grows_with_the_images_and_with_a_slower_model(
    tmp_path: Path, dataset: Dataset
) -> None:
    slow = tiny_checkpoint(tmp_path / "slow", delay=0.2)  # a batch, of 4 here
    forward = torch_forward(slow.model)
    few, many = (
        seconds_to_encode(forward, slow.preprocessing, "cpu", dataset.root, paths, 4, 1)
        for paths in (dataset.paths, dataset.paths * 50)
    )
    assert few >= 20 * 0.2 / 4
    assert many >= 1000 * 0.2 / 4


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.2, "3 s"), (600, "10 min"), (12_060, "3 h 21 min")]
)
def test_words_for_a_time(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
