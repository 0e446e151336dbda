"""Stored maps are checked row by row when they are read, whoever reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from mapped_store import mapped_store
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer.committed import COPY_NAME
from indexer.head import embed_rows
from indexer.manifest import MANIFEST_NAME, _checksum, read_manifest, write_manifest
from indexer.quantise import QuantisedMaps
from indexer.row_check import RowCheck
from indexer.row_checksums import RowBytes, row_checksums
from indexer.store import Store, open_store
from indexer.views import embed
from training.errors import CorruptStoreError
from training.models.config import ModelConfig
from training.models.registry import build_model

COUNT = 20  # in shards of 8, 8 and 4


@pytest.fixture
def index(tmp_path: Path) -> Path:
    dataset = gallery(tmp_path, write_images(tmp_path, COUNT))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    return tmp_path / "out"


def flip(index: Path, shard: int, array: str, row: int, byte: int = 3) -> Path:
    """Flip one bit of one row, where the manifest says that it lies."""
    manifest = read_manifest(index / MANIFEST_NAME)
    entry = manifest.shards[shard].file
    place = next(place for place in entry.arrays if place.name == array)
    length = int(np.prod(place.shape[1:])) * np.dtype(place.dtype).itemsize
    path = index / entry.name
    content = bytearray(path.read_bytes())
    content[place.offset + row * length + byte % length] ^= 1 << row % 8
    path.write_bytes(content)
    return path


def test_checksums_are_xxh3_of_every_byte_of_a_row() -> None:
    generator = np.random.default_rng(0)
    maps, keys = (
        QuantisedMaps(
            generator.integers(-127, 128, (5, 6, 8)).astype(np.int8),
            generator.random((5, 6), dtype=np.float32),
        )
        for _ in range(2)
    )
    found = row_checksums(maps, keys)
    assert found.dtype == np.uint64
    for row in range(5):
        value = 0
        for array in (maps.values, maps.scales, keys.values, keys.scales):
            value = xxhash.xxh3_64(array[row].tobytes(), seed=value).intdigest()
        assert int(found[row]) == value
    empty = QuantisedMaps(np.empty((0, 6, 8), np.int8), np.empty((0, 6), np.float32))
    assert row_checksums(empty, empty).shape == (0,)


@pytest.mark.parametrize("array", ["maps", "map_scales", "keys", "key_scales"])
def test_a_flip_is_found_when_its_row_is_read_and_not_before(index: Path, array: str) -> None:
    path = flip(index, 1, array, 2)  # row 10 of the index
    store = open_store(index)
    others = np.delete(np.arange(COUNT), 10)
    store.quantised(others)
    store.check_rows(others)
    for _ in range(2):  # what was found stays found
        for read in (
            lambda: store.quantised(np.array([3, 10])),
            lambda: store.maps(slice(8, 12)),
            lambda: store.check_rows(slice(None)),
        ):
            with pytest.raises(CorruptStoreError, match=path.name) as error:
                read()
            assert "--repair" in str(error.value)
    open_store(index, verify=False).quantised(slice(None))


def test_every_head_checks_what_it_reads(index: Path, tmp_path: Path) -> None:
    flip(index, 0, "keys", 1)
    store = open_store(index)
    model = tiny_checkpoint(tmp_path / "run").model
    with pytest.raises(CorruptStoreError, match="shards/00000"):
        embed(store, model, model.schema.type_condition(0), head="torch")
    found = embed(store, model, model.schema.type_condition(0), np.arange(2, COUNT), head="torch")
    assert len(found) == COUNT - 2


def test_many_flips_and_every_one_is_found(index: Path) -> None:
    generator = np.random.default_rng(1)
    arrays, caught = ("maps", "map_scales", "keys", "key_scales"), 0
    contents = {path: path.read_bytes() for path in (index / "shards").iterdir()}
    for trial in range(200):
        shard, array = int(generator.integers(3)), arrays[trial % 4]
        row = int(generator.integers(4))
        path = flip(index, shard, array, row, int(generator.integers(1 << 20)))
        with pytest.raises(CorruptStoreError, match=path.name):
            open_store(index).quantised(np.array([8 * shard + row]))
        caught += 1
        path.write_bytes(contents[path])
    assert caught == 200


def test_reading_rows_parses_no_header(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_store(index).quantised(slice(None))
    monkeypatch.setattr("h5py.File", lambda *_, **__: pytest.fail("a header was parsed"))
    found = open_store(index).quantised(slice(None))
    for own, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own.values, theirs.values)
        np.testing.assert_array_equal(own.scales, theirs.scales)


def test_rows_are_checked_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(index)
    asked: list[int] = []
    real = RowBytes.checksum
    monkeypatch.setattr(RowBytes, "checksum", lambda s, row: asked.append(row) or real(s, row))
    for rows in (np.array([1, 2]), np.array([2, 3]), slice(None), slice(None)):
        store.check_rows(rows)
    assert len(asked) == COUNT
    assert store.checked(np.arange(COUNT))
    assert not open_store(index).checked(np.array([0]))


def test_without_places_a_shard_is_checked_whole(index: Path) -> None:
    manifest = read_manifest(index / MANIFEST_NAME)
    shards = tuple(
        replace(shard, file=replace(shard.file, fast=None, arrays=())) for shard in manifest.shards
    )
    path = flip(index, 2, "predicted", 0)
    write_manifest(index / MANIFEST_NAME, replace(manifest, shards=shards))
    (index / COPY_NAME).unlink()
    store = open_store(index)
    store.quantised(slice(0, 16))
    with pytest.raises(CorruptStoreError, match=path.name):
        store.quantised(np.array([16]))


def test_a_manifest_of_format_1_opens_and_the_next_build_adds_the_places(
    index: Path, tmp_path: Path
) -> None:
    expected = open_store(index)
    path = index / MANIFEST_NAME
    data = json.loads(path.read_text())
    strip_fast_and_arrays(data)
    write_format_1(path, data)
    (index / COPY_NAME).unlink()
    store = open_store(index)
    assert all(not shard.file.arrays for shard in store.manifest.shards)
    np.testing.assert_array_equal(store.maps(slice(None))[0], expected.maps(slice(None))[0])
    dataset = gallery(tmp_path, list(expected.paths))
    report = build(dataset, tiny_checkpoint(tmp_path / "run"), index)
    assert report.encoded == 0
    again: Store = open_store(index)
    assert all(shard.file.arrays for shard in again.manifest.shards)


def strip_fast_and_arrays(data: object) -> None:
    if isinstance(data, dict):
        for name in ("fast", "arrays", "checksum"):
            data.pop(name, None)
        for value in data.values():
            strip_fast_and_arrays(value)
    elif isinstance(data, list):
        for value in data:
            strip_fast_and_arrays(value)


def write_format_1(path: Path, body: dict[str, object]) -> None:
    body = body | {"format": 1}
    path.write_text(json.dumps(body | {"checksum": _checksum(body)}))


def test_the_kernel_on_the_cpu_checks_the_rows_that_it_reads() -> None:
    pytest.importorskip("numba")
    schema = SCHEMA
    config = ModelConfig(backbone="resnet18", stage="layer1", dim=16, grid=2)
    model = build_model(schema, config).eval().requires_grad_(False)
    plain = mapped_store(model, [40, 30])
    checksums = np.concatenate(
        [row_checksums(shard.stored.maps, shard.stored.keys) for shard in plain.shards]
    )
    for number, shard in enumerate(plain.shards):
        shard.path = Path(f"shards/{number}.h5")
    for conditions in ([schema.type_condition(0)], [schema.type_condition(n) for n in range(2)]):
        expected = [v for _, v in embed_rows(plain, model, conditions, head="numba", chunk=64)]
        plain._row_check = RowCheck(Path("/nowhere"), plain.shards, plain._starts, checksums)
        found = [v for _, v in embed_rows(plain, model, conditions, head="numba", chunk=64)]
        for own, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own, theirs)
        assert plain.checked(np.arange(70))
        wrong = checksums.copy()
        wrong[55] += 1
        plain._row_check = RowCheck(Path("/nowhere"), plain.shards, plain._starts, wrong)
        with pytest.raises(CorruptStoreError, match=r"shards/1\.h5 is damaged \(row 15 "):
            list(embed_rows(plain, model, conditions, head="numba", chunk=64))
        list(embed_rows(plain, model, conditions, np.arange(55), head="numba", chunk=64))
        plain._row_check = None
