"""What overlaps while a gallery is encoded changes no byte of it, and loses no error."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gallery import build, gallery, tiny_checkpoint, write_images

from indexer.build import shards as encode_shards
from indexer.encode import encode as encoding
from indexer.encode.encode import BatchEncoder, Forward, encode, torch_forward, worker_pool
from indexer.store.store import open_store
from training.errors import DataError, ResourceError
from training.images.preprocessing import Preprocessing
from training.models.embedder import Described


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
    forward = torch_forward(checkpoint.model)
    good = [path for number, path in enumerate(paths) if number != 5]
    for row, path in enumerate(good):
        pixels = checkpoint.preprocessing.open(tmp_path / path)[None]
        alone = encode(forward, pixels, checkpoint.preprocessing, "cpu")
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
        return maps * float("nan") if checkpoint.model.encoded > 9 else maps

    checkpoint.model.trunk = breaks
    with pytest.raises(DataError, match="not finite"):
        build(dataset, checkpoint, tmp_path / "out")
    checkpoint.model.trunk = features
    assert build(dataset, checkpoint, tmp_path / "out").kept == 8


@pytest.mark.parametrize("cores", [1, 2])
def test_pieces_stay_small(cores: int) -> None:
    sizes: list[int] = []

    def forward(images):
        if len(images) > 1:
            torch.empty(1 << 50)  # a pebibyte
        sizes.append(len(images))
        return _plain(images)

    said: list[str] = []
    encoder = BatchEncoder(forward, Preprocessing(size=4), "cpu", said.append)
    pixels = np.zeros((8, 3, 4, 4), np.uint8)
    pixels += np.arange(8, dtype=np.uint8)[:, None, None, None] * 20
    right = [encode_alone(forward, image) for image in pixels]
    threads = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        for _ in range(3):
            results = list(encoder.results(pixels, encoder.start(pixels)))
            found = np.concatenate([result.chances for result in results])
            assert np.array_equal(found, np.concatenate(right))
    finally:
        torch.set_num_threads(threads)
    assert set(sizes) == {1}
    assert len(said) == {1: 3, 2: 2}[cores]  # 8 to 4 to 2 to 1, or to one a core


def encode_alone(forward: Forward, image: np.ndarray) -> np.ndarray:
    return encode(forward, image[None], Preprocessing(size=4), "cpu").chances


def test_no_memory_for_one_image() -> None:
    def forward(images):
        raise MemoryError

    encoder = BatchEncoder(forward, Preprocessing(size=4), "cpu", lambda text: None)
    pixels = np.zeros((5, 3, 4, 4), np.uint8)
    with pytest.raises(ResourceError, match="with a single image"):
        list(encoder.results(pixels, encoder.start(pixels)))


def test_the_next_batch_begins_before_the_last_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores, three images in batches of one: the second is begun while the first waits."""
    second = threading.Event()
    checkpoint = tiny_checkpoint(tmp_path / "run")
    real, calls, lock = encoding._parts, [], threading.Lock()

    def parts(forward, preprocessing, images):
        with lock:
            calls.append(len(images))
            first = len(calls) == 1
        if first:  # would wait for ever if the second batch were not begun
            assert second.wait(30)
        second.set()
        return real(forward, preprocessing, images)

    monkeypatch.setattr(encoding, "_parts", parts)
    dataset = gallery(tmp_path, write_images(tmp_path, 3))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert build(dataset, checkpoint, tmp_path / "out", batch_size=1).encoded == 3
    finally:
        torch.set_num_threads(threads)
    assert calls == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 3, 5, 11])
def test_each_core_takes_images_of_its_own(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_A_CORE", 3)
    seen: list[tuple[int, int]] = []

    def forward(images: torch.Tensor) -> Described:
        assert torch.is_inference_mode_enabled()
        seen.append((len(images), torch.get_num_threads()))
        return Described(images.flatten(1) * 2, images.flatten(1)[:, :2])

    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4), np.uint8)
    one_by_one = [encode(forward, p[None], Preprocessing(size=4), "cpu") for p in pixels]
    seen.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = encode(forward, pixels, Preprocessing(size=4), "cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for row, right in enumerate(one_by_one):
        assert np.array_equal(found.chances[row], right.chances[0])
        assert np.array_equal(found.nuance[row], right.nuance[0])
    wanted = {1: [1], 3: [1, 2], 5: [2, 3], 11: [2, 3, 3, 3]}
    assert sorted(size for size, _ in seen) == wanted[count]
    assert {cores for _, cores in seen} == {1}


@pytest.mark.parametrize("room", [1, 2, 3])
def test_images_that_fit_one_by_one_are_encoded(room: int) -> None:
    """Four cores, memory for fewer images at once, and a next batch that is begun meanwhile."""
    inside, lock, said = [0], threading.Lock(), list[str]()

    def forward(images: torch.Tensor) -> Described:
        with lock:
            inside[0] += len(images)
            full = inside[0] > room
        time.sleep(0.002)
        with lock:
            inside[0] -= len(images)
        if full:
            raise MemoryError
        return _plain(images)

    encoder = BatchEncoder(forward, Preprocessing(size=4), "cpu", said.append)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (16, 3, 4, 4), dtype=np.uint8) for _ in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        started = [encoder.start(pixels) for pixels in batches]
        for pixels, encodings in zip(batches, started, strict=True):
            found = list(encoder.results(pixels, encodings))
            right = [encode_alone(_plain, image) for image in pixels]
            assert np.array_equal(np.concatenate([r.chances for r in found]), np.concatenate(right))
    finally:
        torch.set_num_threads(threads)
    pieces = [int(text.split()[-4]) for text in said]
    assert pieces == sorted(pieces, reverse=True)


def _plain(images: torch.Tensor) -> Described:
    return Described(images[:, :1, 0, 0].expand(-1, 4), torch.zeros(len(images), 2))


def test_each_thread_has_one_core() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(worker_pool().map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
        assert worker_pool() is worker_pool()
    finally:
        torch.set_num_threads(threads)
