"""The cache of a frozen backbone's maps: what it may answer, and what becomes of it in need."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError, ResourceError
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import CACHE, MapCache, TrunkMaps, trunk_maps
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.processes import Processes
from training.recipe import Recipe
from training.run import RunConfig, Setting, run_training


class Cache:
    """`trunk_maps` of the first pictures of a catalogue, and whether it computed them."""

    def __init__(self, folder: Path, pictures: int = 12) -> None:
        self.dataset = load_dataset(str(write_tiny_catalogue(folder / "shapes", pictures + 2)))
        self.rows = np.arange(pictures, dtype=np.int64)
        self.folder = folder / "cache"
        torch.manual_seed(0)
        config = ModelConfig("resnet18", "layer1", 4, 16)
        self.model = M2Fashion(self.dataset.schema, config, 2).eval()
        self.trunk, self.model.trunk = self.model.trunk, self._noted
        self.computed = False

    def _noted(self, images: torch.Tensor) -> torch.Tensor:
        self.computed = True
        return self.trunk(images)

    def maps(
        self, dataset: Dataset | None = None, rows: np.ndarray | None = None, retry: bool = True
    ) -> tuple[TrunkMaps, bool]:
        """The maps, and whether they were computed anew."""
        self.computed = False
        found = trunk_maps(
            self.model,
            self.dataset if dataset is None else dataset,
            self.rows if rows is None else rows,
            Reading(Preprocessing(size=32)),
            MapCache(self.folder, retry=retry),
        )
        return found, self.computed

    @property
    def root(self) -> Path:
        return self.dataset.root


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_maps_follow_their_pictures_when_other_rows_come_and_go(cache: Cache) -> None:
    (cache.root / "images/003.png").write_bytes(b"broken")
    found, computed = cache.maps()
    assert computed
    assert 3 not in found.rows
    moved = cache.dataset.subset(np.array([12, *range(12)]))  # a picture of no interest comes first
    again, computed = cache.maps(moved, np.arange(1, 13))
    assert not computed
    assert again.rows.tolist() == [row + 1 for row in found.rows]
    assert again.failures == found.failures
    np.testing.assert_array_equal(again.maps, found.maps)


@pytest.mark.parametrize("share", [0.0, 0.004, 0.5, 0.9999])
def test_a_cache_file_that_is_cut_short_is_computed_anew(cache: Cache, share: float) -> None:
    (cache.root / "images/003.png").write_bytes(b"broken")
    found, _ = cache.maps()
    expected = np.array(found.maps)
    (file,) = cache.folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    again, computed = cache.maps()
    assert computed
    np.testing.assert_array_equal(again.maps, expected)
    assert file.read_bytes() == whole
    again, computed = cache.maps()
    assert not computed
    assert again.rows.tolist() == found.rows.tolist()
    assert again.failures == found.failures


def test_a_cache_that_cannot_be_written_is_named(cache: Cache) -> None:
    cache.folder.write_text("a file in the folder's place")
    with pytest.raises(ResourceError, match=str(cache.folder)):
        cache.maps()


def test_a_disk_that_is_full_is_found_before_anything_is_computed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of a mapping that the disk has no room for would end the process."""
    reserved: list[int] = []

    def full(descriptor: int, offset: int, length: int) -> None:
        reserved.append(offset + length)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match=f"disk is full: cannot write {cache.folder}"):
        cache.maps()
    assert not list(cache.folder.iterdir())
    monkeypatch.undo()
    found, _ = cache.maps()
    assert reserved[0] > found.maps.nbytes


def test_only_what_dead_processes_left_is_removed(cache: Cache) -> None:
    cache.folder.mkdir()
    dead, alive = (cache.folder / f".tmp-{name}" for name in ("dead", "alive"))
    dead.write_bytes(b"maps")
    alive.write_bytes(b"maps")
    yesterday = time.time() - 25 * 3600
    os.utime(dead, (yesterday, yesterday))
    cache.maps()
    assert set(cache.folder.glob(".tmp-*")) == {alive}


@pytest.mark.parametrize("error", [DataError("input/output error"), MemoryError()])
def test_a_picture_that_could_not_be_read_for_a_while_is_not_missed_for_ever(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (cache.root / "images/003.png").write_bytes(b"broken")
    decode = Preprocessing.decode

    def failing(self: Preprocessing, content: bytes, name: str) -> np.ndarray:
        if name.endswith("005.png"):
            raise error
        return decode(self, content, name)

    with monkeypatch.context() as patch:
        patch.setattr(Preprocessing, "decode", failing)
        for first in (True, False):
            found, computed = cache.maps()
            assert computed == first
            assert [path for path, _ in found.failures] == ["images/003.png", "images/005.png"]
    for first in (True, False):
        found, computed = cache.maps()
        assert computed == first
        assert [path for path, _ in found.failures] == ["images/003.png"]
        assert 5 in found.rows


def test_maps_of_other_code_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.maps()
    assert not cache.maps()[1]
    monkeypatch.setattr("training.maps.CACHE", CACHE + 1)
    assert cache.maps()[1]


def test_another_process_takes_the_rows_that_the_first_one_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    decode, calls = Preprocessing.decode, []

    def failing(self: Preprocessing, *arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise DataError("x: input/output error")
        return decode(self, *arguments, **options)

    monkeypatch.setattr(Preprocessing, "decode", failing)
    first, computed = cache.maps()
    assert computed
    assert len(first.rows) == 11
    other, computed = cache.maps(retry=False)  # though all can be read by now
    assert not computed
    assert np.array_equal(other.rows, first.rows)
    again, computed = cache.maps()
    assert computed
    assert len(again.rows) == 12


def test_of_several_processes_only_the_first_one_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    asked = []

    def stored(*arguments: object, retry: bool) -> None:
        asked.append(retry)
        raise Stop

    monkeypatch.setattr("training.run.StoredMaps", stored)
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 12)))
    config = RunConfig(
        ModelConfig("resnet18", "layer1", 4, 16), Recipe(batch_size=4), Preprocessing(size=32)
    )
    for rank in (0, 1):
        with pytest.raises(Stop):
            run_training(dataset, config, tmp_path / "run", Setting(processes=Processes(rank, 2)))
    assert asked == [True, False]
