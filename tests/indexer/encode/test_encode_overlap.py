"""What overlaps while a gallery is encoded changes no byte of it, and loses no error."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_gallery import build, gallery, tiny_checkpoint, write_images

from indexer.build import shards as encode_shards
from indexer.encode import encode as encoding
from indexer.encode.encode import BatchEncoder, EncodedBatch, Forward, encode
from indexer.encode.on_torch import torch_forward
from indexer.store.store import open_store
from training.errors import DataError, ResourceError
from training.images.preprocessing import Preprocessing


def files(out: Path) -> list[tuple[int, str, str]]:
    shards = open_store(out).manifest.shards
    return [(s.rows, s.content, s.file.sha256) for s in shards]


def test_shards_are_those_of_one_image_after_another(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 21)
    (tmp_path / paths[5]).write_text("no image")
    checkpoint = tiny_checkpoint(tmp_path / "run")
    dataset = gallery(tmp_path, paths)
    build(dataset, checkpoint, tmp_path / "whole", batch_size=3)
    store = open_store(tmp_path / "whole")
    assert [s.rows for s in store.manifest.shards] == [7, 8, 5]
    forward = torch_forward(checkpoint.model, checkpoint.preprocessing, "cpu")
    good = [path for number, path in enumerate(paths) if number != 5]
    for row, path in enumerate(good):
        pixels = checkpoint.preprocessing.open(tmp_path / path)[None]
        alone = encode(forward, pixels)
        right = store.layout.pack(alone.chances, alone.nuance)
        found = store.descriptors_of(np.array([row]))
        assert np.abs(found.astype(int) - right).max() <= 1
    build(dataset, checkpoint, tmp_path / "again", batch_size=3)
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_a_shard_is_written_while_the_next_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = threading.Event()
    checkpoint = tiny_checkpoint(tmp_path / "run")
    real, features = encode_shards.write_shard, checkpoint.model.trunk

    def write(folder, number, rows):
        if number == 0:  # would wait for ever if nothing else went on meanwhile
            assert encoded.wait(30)
        return real(folder, number, rows)

    def seen(images):
        maps = features(images)
        if checkpoint.model.encoded >= 12:
            encoded.set()
        return maps

    monkeypatch.setattr(encode_shards, "write_shard", write)
    checkpoint.model.trunk = seen
    dataset = gallery(tmp_path, write_images(tmp_path, 20))
    assert build(dataset, checkpoint, tmp_path / "out").encoded == 20


def test_an_error_of_the_writer_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encode_shards.write_shard

    def write(folder, number, rows):
        if number == 1:
            raise ResourceError("the disk is full")
        return real(folder, number, rows)

    dataset = gallery(tmp_path, write_images(tmp_path, 30))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(encode_shards, "write_shard", write)
        with pytest.raises(ResourceError, match="disk is full"):
            build(dataset, checkpoint, tmp_path / "out")
    assert build(dataset, checkpoint, tmp_path / "out").kept == 8
    build(dataset, checkpoint, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_an_error_of_the_model_keeps_the_shard_being_written(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 30))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    features = checkpoint.model.trunk

    def breaks(images):
        maps = features(images)
        return maps * float("nan") if checkpoint.model.encoded > 11 else maps

    checkpoint.model.trunk = breaks
    with pytest.raises(DataError, match="not finite"):
        build(dataset, checkpoint, tmp_path / "out")
    checkpoint.model.trunk = features
    assert build(dataset, checkpoint, tmp_path / "out").kept == 8


@pytest.mark.parametrize("cores", [1, 2])
def test_pieces_stay_small(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "threads", lambda: cores)
    sizes: list[int] = []

    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        if len(pixels) > 1:
            raise MemoryError
        sizes.append(len(pixels))
        return _plain(pixels)

    said: list[str] = []
    encoder = BatchEncoder(Forward(run), said.append)
    pixels = np.zeros((8, 3, 4, 4), np.uint8)
    pixels += np.arange(8, dtype=np.uint8)[:, None, None, None] * 20
    for _ in range(3):
        results = list(encoder.results(pixels, encoder.start(pixels)))
        found = np.concatenate([result.chances for result in results])
        assert np.array_equal(found, _plain(pixels).chances)
    assert set(sizes) == {1}
    assert len(said) == 3  # 8 to 4 to 2 to 1


def test_what_does_not_fit_torch_is_a_memory_error(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "run")
    checkpoint.model.trunk = lambda images: torch.empty(1 << 50)  # a pebibyte
    forward = torch_forward(checkpoint.model, Preprocessing(size=4), "cpu")
    with pytest.raises(MemoryError):
        encode(forward, np.zeros((1, 3, 4, 4), np.uint8))


def test_no_memory_for_one_image() -> None:
    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        raise MemoryError

    encoder = BatchEncoder(Forward(run), lambda text: None)
    pixels = np.zeros((5, 3, 4, 4), np.uint8)
    with pytest.raises(ResourceError, match="with a single image"):
        list(encoder.results(pixels, encoder.start(pixels)))


def test_the_next_batch_begins_before_the_last_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores, three images in batches of one: the second is begun while the first waits."""
    monkeypatch.setattr(encoding, "threads", lambda: 2)
    second = threading.Event()
    checkpoint = tiny_checkpoint(tmp_path / "run")
    real, calls, lock = checkpoint.model.trunk, [], threading.Lock()

    def trunk(images: torch.Tensor) -> torch.Tensor:
        with lock:
            calls.append(len(images))
            first = len(calls) == 1
        if first:  # would wait for ever if the second batch were not begun
            assert second.wait(30)
        second.set()
        return real(images)

    checkpoint.model.trunk = trunk
    dataset = gallery(tmp_path, write_images(tmp_path, 3))
    assert build(dataset, checkpoint, tmp_path / "out", batch_size=1).encoded == 3
    assert calls == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 3, 5, 11])
def test_each_core_takes_images_of_its_own(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_A_CORE", 3)
    monkeypatch.setattr(encoding, "threads", lambda: 2)
    seen: list[int] = []

    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        seen.append(len(pixels))
        return _plain(pixels)

    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4), np.uint8)
    found = encode(Forward(run), pixels)
    assert np.array_equal(found.chances, _plain(pixels).chances)
    assert np.array_equal(found.nuance, _plain(pixels).nuance)
    wanted = {1: [1], 3: [1, 2], 5: [2, 3], 11: [2, 3, 3, 3]}
    assert sorted(seen) == wanted[count]


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_a_build_divides_batches_alike_on_every_machine(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last bits depend on which images are computed together, and bytes shall not on cores."""
    monkeypatch.setattr(encoding, "threads", lambda: cores)
    seen: list[int] = []

    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        seen.append(len(pixels))
        return _plain(pixels)

    assert Forward(run).batch_size % 4 == 0
    pixels = np.zeros((11, 3, 4, 4), np.uint8)
    encoder = BatchEncoder(Forward(run), print)
    assert sum(len(r.chances) for r in encoder.results(pixels, encoder.start(pixels))) == 11
    assert sorted(seen) == [3, 4, 4]


@pytest.mark.parametrize("room", [1, 2, 3])
def test_images_that_fit_one_by_one_are_encoded(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores, memory for fewer images at once, and a next batch that is begun meanwhile."""
    monkeypatch.setattr(encoding, "threads", lambda: 4)
    inside, lock, said = [0], threading.Lock(), list[str]()

    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        with lock:
            inside[0] += len(pixels)
            full = inside[0] > room
        time.sleep(0.002)
        with lock:
            inside[0] -= len(pixels)
        if full:
            raise MemoryError
        return _plain(pixels)

    encoder = BatchEncoder(Forward(run), said.append)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (16, 3, 4, 4), dtype=np.uint8) for _ in range(2)]
    started = [encoder.start(pixels) for pixels in batches]
    for pixels, encodings in zip(batches, started, strict=True):
        found = list(encoder.results(pixels, encodings))
        assert np.array_equal(np.concatenate([r.chances for r in found]), _plain(pixels).chances)
    pieces = [int(text.split()[-4]) for text in said]
    assert pieces == sorted(pieces, reverse=True)


def _plain(pixels: NDArray[np.uint8]) -> EncodedBatch:
    chances = np.repeat(pixels[:, :1, 0, 0].astype(np.float32), 4, 1)
    return EncodedBatch(chances, chances[:, :2] + 1)


def test_torch_computes_on_one_core_in_each_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "threads", lambda: 2)
    model = tiny_checkpoint(tmp_path / "run").model
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        forward = torch_forward(model, Preprocessing(size=4), "cpu")
        assert list(forward.pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
        assert forward.pool is torch_forward(model, Preprocessing(size=4), "cpu").pool
    finally:
        torch.set_num_threads(own)
