"""What an index holds: descriptors, rejects, odd names, aligned labels, payload."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny_gallery import build, gallery, tiny_checkpoint, write_images

from indexer.search.index import open_search
from indexer.store.manifest import read_manifest
from indexer.store.store import open_store
from training.errors import DataError, ResourceError, UsageError
from training.images.tensors import normalise
from training.schema import Attribute, Schema


def direct(checkpoint, dataset, rows):
    """The slow way: one image at a time."""
    model, out = checkpoint.model, []
    for row in rows:
        pixels = checkpoint.preprocessing.open(dataset.root / dataset.paths[row])[None]
        trunk = model.trunk(normalise(torch.from_numpy(pixels), checkpoint.preprocessing))
        seen = model.describe(trunk)
        out.append(model.layout.pack(seen.chances.numpy(), seen.nuance.numpy()))
    return np.concatenate(out)


def assert_close(found, expected):
    """Bytes but for the last step of a batch."""
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_descriptors_are_what_the_model_sees(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 20))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    report = build(dataset, checkpoint, tmp_path / "out")
    store = open_store(tmp_path / "out")
    assert store.layout == checkpoint.model.layout
    assert report.search.file is None
    assert open_search(store).choice == "flat bytes"
    assert_close(store.descriptors(), direct(checkpoint, dataset, range(20)))
    digests = [hashlib.sha256((tmp_path / path).read_bytes()).digest() for path in dataset.paths]
    assert store.digests().tobytes() == b"".join(digests)


def test_items_and_payload_are_kept(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 12))
    (tmp_path / dataset.paths[3]).write_text("no image")
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    store = open_store(tmp_path / "out")
    good = [row for row in range(12) if row != 3]
    assert store.items().tolist() == [row // 2 for row in good]
    assert list(store.payload) == ["sku", "price"]
    sku, price = store.payload["sku"], store.payload["price"]
    assert [sku.text(row) for row in range(11)] == [f"sku {row}" for row in good]
    assert (sku.numeric, price.numeric) == (False, True)
    assert price.numbers().tolist() == [row / 2 for row in good]
    plain = dataclasses.replace(dataset, items=None, payload={})
    build(plain, tiny_checkpoint(tmp_path / "run"), tmp_path / "plain")
    assert open_store(tmp_path / "plain").items() is None
    assert open_store(tmp_path / "plain").payload == {}


def test_reading_in_place_equals_h5py(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 20))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    store = open_store(tmp_path / "out")
    seen = 0
    for entry, shard in zip(store.manifest.shards, store.shards, strict=True):
        assert entry.file is not None
        with h5py.File(tmp_path / "out" / entry.file.name) as file:
            assert file["descriptors"].chunks is None
            for name, array in {
                "descriptors": shard.rows.descriptors,
                "digests": shard.rows.digests,
                "listed": shard.rows.listed,
            }.items():
                np.testing.assert_array_equal(array, file[name][:])
                assert not array.flags.writeable
                assert array.flags.aligned
        seen += len(shard.rows)
    assert seen == len(store) == 20
    rows = np.array([17, 0, 9, 9], dtype=np.int64)
    np.testing.assert_array_equal(store.descriptors_of(rows), store.descriptors()[rows])
    assert store.descriptors_of(rows[:0]).shape == (0, store.layout.width)
    for row in (20, -1):
        with pytest.raises(IndexError, match=r"0\.\.19"):
            store.descriptors_of(np.array([row], dtype=np.int64))


def test_broken_images_are_skipped_listed_and_counted(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 30)
    (tmp_path / paths[4]).write_bytes((tmp_path / paths[4]).read_bytes()[:200])
    (tmp_path / paths[20]).write_text("<svg/>")
    paths.insert(9, "pic/missing.jpg")
    paths.append("../outside.jpg")
    dataset = gallery(tmp_path, paths)
    checkpoint = tiny_checkpoint(tmp_path / "run")
    with pytest.raises(DataError, match=r"4 of 32 images .* more than 10% allowed"):
        build(dataset, checkpoint, tmp_path / "out")
    encoded = checkpoint.model.encoded
    report = build(dataset, checkpoint, tmp_path / "out", max_reject_rate=0.2)
    assert checkpoint.model.encoded == encoded  # the failed build's shards were kept
    assert (report.listed, report.images, report.rejected) == (32, 28, 4)
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    rejects = {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}
    assert set(rejects) == {paths[4], paths[21], "pic/missing.jpg", "../outside.jpg"}
    assert "truncated" in rejects[paths[4]].lower()
    assert "not an image" in rejects[paths[21]]
    assert "no such file" in rejects["pic/missing.jpg"]
    assert "leaves" in rejects["../outside.jpg"]
    store = open_store(tmp_path / "out")
    good = [row for row, path in enumerate(paths) if path not in rejects]
    assert store.rows.tolist() == good
    assert list(store.paths) == [paths[row] for row in good]
    np.testing.assert_array_equal(store.labels(), dataset.labels[good])
    np.testing.assert_array_equal(store.gallery.splits, dataset.splits[good])
    assert_close(store.descriptors(), direct(checkpoint, dataset, good))


def test_a_shard_without_any_readable_image_and_none_at_all(tmp_path: Path) -> None:
    paths = [f"gone/{i}.jpg" for i in range(8)] + write_images(tmp_path, 10)
    dataset, checkpoint = gallery(tmp_path, paths), tiny_checkpoint(tmp_path / "run")
    report = build(dataset, checkpoint, tmp_path / "out", max_reject_rate=0.5)
    assert (report.images, report.rejected) == (10, 8)
    assert open_store(tmp_path / "out").rows.tolist() == list(range(8, 18))
    nothing = gallery(tmp_path, paths[:8])
    with pytest.raises(DataError, match="8 of 8"):
        build(nothing, checkpoint, tmp_path / "none", max_reject_rate=1.0)
    with pytest.raises(DataError, match="no image to index"):
        build(gallery(tmp_path, []), checkpoint, tmp_path / "empty")


def test_odd_names_round_trip(tmp_path: Path) -> None:
    plain = write_images(tmp_path, 1)[0]
    names = ["a b.jpg", "ü/日本.jpg", "new\nline.jpg", os.fsdecode(b"latin-\xe9.jpg"), "dup.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / plain).read_bytes())
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    names += ["dup.jpg", "loop.jpg"]
    report = build(
        gallery(tmp_path, names),
        tiny_checkpoint(tmp_path / "run"),
        tmp_path / "out",
        max_reject_rate=0.2,
    )
    assert report.rejected == 1
    store = open_store(tmp_path / "out")
    assert list(store.paths) == names[:-1]
    assert all((store.root / path).exists() for path in store.paths)
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    assert manifest is not None
    assert "symbolic links" in manifest.rejects[0].reason


def test_labels_are_renumbered_by_the_model_schema(tmp_path: Path) -> None:
    own = Schema((Attribute("Pattern", ("Plain", "dotted", "Floral")), Attribute("fit", ("slim",))))
    base = gallery(tmp_path, write_images(tmp_path, 3))
    labels = np.array([[1, -1, -1, 1], [-1, 1, -1, 0], [0, 0, 0, 0]], dtype=np.int8)
    dataset = dataclasses.replace(base, schema=own, labels=labels)
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    found = open_store(tmp_path / "out").labels()
    # neck: v, round; pattern: floral, striped, plain
    # A pattern that is plain, or one that the model does not know, is not striped either.
    assert found.tolist() == [[0, 0, -1, -1, 1], [0, 0, -1, -1, -1], [0, 0, 0, 0, 0]]


def test_fault_18_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 4)), tiny_checkpoint(tmp_path)
    checkpoint.model.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        build(dataset, checkpoint, tmp_path / "out")


def test_wrong_arguments(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 2)), tiny_checkpoint(tmp_path)
    for option in ({"batch_size": 0}, {"shard_rows": 0}, {"max_reject_rate": 2.0}):
        with pytest.raises(UsageError, match=next(iter(option))):
            build(dataset, checkpoint, tmp_path / "out", **option)
    for factory in ("PQ4x4fs", "IVF0", "IVF3", "", "IVF4,Flat"):
        with pytest.raises(UsageError, match=f"index factory '{factory}'"):
            build(dataset, checkpoint, tmp_path / "out", index_factory=factory)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="build-index --dataset"):
        open_store(tmp_path / "nothing")


def test_fault_31_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 10)), tiny_checkpoint(tmp_path)
    build(dataset, checkpoint, tmp_path / "expected", batch_size=8)
    real = checkpoint.model.trunk

    def small(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("too large")
        return real(images)

    checkpoint.model.trunk = small
    build(dataset, checkpoint, tmp_path / "out", batch_size=8)
    found, expected = (open_store(tmp_path / name) for name in ("out", "expected"))
    assert_close(found.descriptors(), expected.descriptors())
    checkpoint.model.trunk = lambda images: small(images.repeat(3, 1, 1, 1))
    with pytest.raises(ResourceError, match="single image"):
        build(dataset, checkpoint, tmp_path / "never")
