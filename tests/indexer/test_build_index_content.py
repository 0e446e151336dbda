"""What an index holds: rows, rejects, odd names, aligned labels, views."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer import views
from indexer.manifest import read_manifest
from indexer.store import open_store
from indexer.view import open_view
from training.errors import DataError, ResourceError, UsageError
from training.schema import Attribute, Schema


def direct_maps(checkpoint, dataset, rows):
    """The slow way: one image at a time, in float32."""
    tensors = [checkpoint.preprocessing.open(dataset.root / dataset.paths[r]) for r in rows]
    images = checkpoint.preprocessing.normalise(torch.from_numpy(np.stack(tensors)))
    return torch.cat([checkpoint.model.features(image.unsqueeze(0)) for image in images])


def test_views_equal_direct_embedding(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 20))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    report = build(dataset, checkpoint, tmp_path / "out", views=("all",))
    store = open_store(tmp_path / "out")
    assert len(report.views) == 2 + 5 + 1
    maps = direct_maps(checkpoint, dataset, range(20))
    for entry in views.conditions_of(SCHEMA, ["all"]):
        expected = checkpoint.model.attend(maps, torch.from_numpy(entry.condition).float()[None])
        index = open_view(store, views.condition_key(entry.condition))
        found = np.array(index.vectors)
        assert (found * expected.numpy()).sum(1).min() > 0.9999
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        on_demand = views.embed(store, checkpoint.model, entry.condition, chunk=7)
        np.testing.assert_allclose(on_demand, found, atol=1e-6)
    combined = SCHEMA.condition(present=["v", "floral"], absent=["striped"])
    assert open_view(store, views.condition_key(combined)) is None
    rows = np.array([19, 3, 3, 8], dtype=np.int64)
    some = views.embed(store, checkpoint.model, combined, rows)
    every = views.embed(store, checkpoint.model, combined)
    np.testing.assert_allclose(some, every[rows], atol=1e-6)
    part = views.embed(store, checkpoint.model, combined, slice(5, 18, 2))
    np.testing.assert_allclose(part, every[5:18:2], atol=1e-6)


def test_reading_in_place_equals_h5py(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 20))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    store = open_store(tmp_path / "out")
    seen = 0
    for entry, shard in zip(store.manifest.shards, store.shards, strict=True):
        assert entry.file is not None
        with h5py.File(tmp_path / "out" / entry.file.name) as file:
            assert file["maps"].chunks is None
            for name, array in {
                "maps": shard.rows.maps.values,
                "map_scales": shard.rows.maps.scales,
                "keys": shard.rows.keys.values,
                "key_scales": shard.rows.keys.scales,
                "predicted": shard.rows.predicted,
                "digests": shard.rows.digests,
            }.items():
                np.testing.assert_array_equal(array, file[name][:])
                assert not array.flags.writeable
                assert array.flags.aligned
        seen += len(shard.rows)
    assert seen == len(store) == 20
    rows = np.array([17, 0, 9, 9], dtype=np.int64)
    some, every = store.maps(rows), store.maps(slice(None))
    assert torch.equal(some[0], every[0][rows])
    assert torch.equal(some[1], every[1][rows])
    with pytest.raises(IndexError, match=r"0\.\.19"):
        store.maps(np.array([20], dtype=np.int64))
    with pytest.raises(IndexError, match=r"0\.\.19"):
        store.maps(np.array([-1], dtype=np.int64))


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
    expected = direct_maps(checkpoint, dataset, good).numpy()
    np.testing.assert_allclose(store.maps(slice(None))[0].numpy(), expected, atol=0.02)


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
    assert found.tolist() == [[0, 0, -1, 0, 1], [0, 0, -1, 0, -1], [0, 0, 0, 0, 0]]


def test_more_views_are_added_without_encoding(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 10)), None
    checkpoint = tiny_checkpoint(tmp_path / "run")
    build(dataset, checkpoint, tmp_path / "out")
    before = {p: p.stat().st_ino for p in (tmp_path / "out" / "views").iterdir()}
    report = build(dataset, checkpoint, tmp_path / "out", views=("values", "none"))
    assert (report.encoded, len(report.views)) == (0, 8)
    assert all(path.stat().st_ino == inode for path, inode in before.items())


def test_fault_05_views_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 4)), tiny_checkpoint(tmp_path)
    usage = views.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(views.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match="ask for fewer"):
        build(dataset, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out" / "views").exists()


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
    with pytest.raises(UsageError, match="'shapes'; choose from types"):
        build(dataset, checkpoint, tmp_path / "out", views=("shapes",))
    with pytest.raises(DataError, match="build-index --dataset"):
        open_store(tmp_path / "nothing")


def test_fault_31_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    dataset, checkpoint = gallery(tmp_path, write_images(tmp_path, 10)), tiny_checkpoint(tmp_path)
    build(dataset, checkpoint, tmp_path / "expected", batch_size=8)
    real = checkpoint.model.features

    def small(images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("too large")
        return real(images)

    checkpoint.model.features = small
    build(dataset, checkpoint, tmp_path / "out", batch_size=8)
    found, expected = (open_store(tmp_path / name) for name in ("out", "expected"))
    np.testing.assert_allclose(found.maps(slice(None))[0], expected.maps(slice(None))[0], atol=0.02)
    checkpoint.model.features = lambda images: small(images.repeat(3, 1, 1, 1))
    with pytest.raises(ResourceError, match="single image"):
        build(dataset, checkpoint, tmp_path / "never")
