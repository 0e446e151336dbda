"""What a build needs is said, near what it then takes, and too little is refused at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_gallery import TinyCheckpoint, build, gallery, tiny_checkpoint, write_images

from indexer import preflight
from indexer.encode import torch_forward
from indexer.index_choice import choose_index
from indexer.preflight import Needs, check_needs, in_words, needs_of, seconds_to_encode
from indexer.progress import Silent
from indexer.store import open_store
from training.datasets.dataset import Dataset
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
    tmp_path: Path, dataset: Dataset, checkpoint: TinyCheckpoint
) -> None:
    build(dataset, checkpoint, tmp_path / "out", views=("all",), shard_rows=20)
    manifest = open_store(tmp_path / "out").manifest
    choice = choose_index(20, 8)
    needs = needs_of(manifest, 20, 20, len(manifest.views), choice, 20, 4, 0)
    headers = 4096 * 4  # of HDF5: little where images are many
    written = sum(e.size for e in manifest.files if not e.name.startswith("model"))
    assert written - headers < needs.disk < 2 * written


def test_of_a_gallery_of_full_size(tmp_path: Path, checkpoint: TinyCheckpoint) -> None:
    manifest_of = tmp_path / "out"
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 2))
    build(dataset, checkpoint, manifest_of)
    manifest = open_store(manifest_of).manifest
    schema = Schema(tuple(Attribute(f"a{n}", tuple(f"v{n}{m}" for m in range(18))) for n in "abcd"))
    identity = replace(manifest.identity, dim=512, grid=(7, 7))
    manifest = replace(manifest, identity=identity, schema=schema.to_json())
    choice = choose_index(253_983, 512)
    needs = needs_of(manifest, 253_983, 253_983, 5, choice, 1024, 32, 1)
    assert 12.8e9 + 5 * 520e6 < needs.disk < 16.5e9  # maps of 50 KB, views of 2 KB, an image
    assert needs.memory < 4e9
    assert needs_of(manifest, 253_983, 0, 0, choice, 1024, 32, 1).memory == 0


def test_too_little_disk_or_memory_is_refused_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = Needs(images=100, encode=90, disk=5 * 10**9, memory=2 * 10**9)
    free = SimpleNamespace(free=6 * 10**9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    monkeypatch.setattr(preflight, "available_memory", lambda: 3 * 10**9)
    line = check_needs(needs, tmp_path)
    assert "100 images, 90 of them" in line
    assert "5 GB" in line
    assert "6 GB are free" in line
    monkeypatch.setattr(preflight, "available_memory", lambda: 10**9)
    with pytest.raises(ResourceError, match="2 GB of memory, of which 1 GB are available"):
        check_needs(needs, tmp_path)
    monkeypatch.setattr(preflight, "available_memory", lambda: None)
    check_needs(needs, tmp_path)
    little = check_needs(Needs(images=1, encode=1, disk=41_700, memory=0), tmp_path)
    assert "needs 41.7 KB in" in little
    assert "and 0 bytes of memory" in little
    free.free = 10**9
    with pytest.raises(ResourceError, match=r"5 GB in .*, where 1 GB are free.*--views"):
        check_needs(needs, tmp_path)


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
    assert any(line.startswith("20 images, 20 of them to be encoded") for line in said.lines)
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
