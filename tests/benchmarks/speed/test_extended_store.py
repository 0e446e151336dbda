"""An extended index is a real one: rows of the source first, P and predictions of its own maps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import extended_store
from benchmarks.speed.extended_store import extend
from indexer.store import Store, open_store
from retrieval.engine import Engine
from training.checkpoint import load_checkpoint
from training.errors import DataError, UsageError

IMAGES = 45  # of `source`


def everything(store: Store) -> list[np.ndarray]:
    """All that a store says of its rows."""
    maps, keys = store.quantised(slice(None))
    gallery = store.gallery
    return [
        *(maps.values, maps.scales, keys.values, keys.scales),
        *(gallery.predicted, gallery.labels, gallery.rows, gallery.splits, gallery.digests),
        np.array(list(gallery.paths)),
    ]


# Fewer than the source, within and at the end of a shard; more, and no multiple of a shard.
@pytest.mark.parametrize("rows", [1, 20, 33, IMAGES, IMAGES + 1, 100])
def test_the_first_rows_are_the_sources(source: Path, tmp_path: Path, rows: int) -> None:
    made = open_store(extend(source, tmp_path / "made", rows, shard_rows=16))
    made.check()
    assert len(made) == rows
    for own, theirs in zip(everything(made), everything(open_store(source)), strict=True):
        same = min(rows, IMAGES)
        np.testing.assert_array_equal(own[:same], theirs[:same])


def test_further_rows_are_new_images_labelled_as_the_one_they_came_from(
    source: Path, tmp_path: Path
) -> None:
    made, old = (
        open_store(extend(source, tmp_path / "made", 100, shard_rows=16)),
        open_store(source),
    )
    came_from = np.arange(100) % IMAGES
    np.testing.assert_array_equal(made.labels(), old.labels()[came_from])
    np.testing.assert_array_equal(made.rows, old.rows[came_from])
    maps = made.maps(slice(None))[0].flatten(1)
    cosines = torch.nn.functional.normalize(maps) @ torch.nn.functional.normalize(maps).T
    new = cosines[IMAGES:].clone()
    new[torch.arange(55), torch.arange(IMAGES, 100)] = -1
    assert float(new.max()) < 0.9999, "no image twice"
    nearest = cosines[IMAGES:, :IMAGES].argmax(1).numpy()
    assert (nearest == came_from[IMAGES:]).mean() > 0.5, "most are still like the image they were"


def test_keys_and_predictions_are_those_of_the_perturbed_maps(source: Path, tmp_path: Path) -> None:
    made = open_store(extend(source, tmp_path / "made", 100, shard_rows=16))
    model = load_checkpoint(made.model_folder).model
    maps, keys = made.maps(slice(IMAGES, None))
    with torch.inference_mode():
        right = model.keys(maps)
        predicted = model.predict(maps, right)
    assert float((keys - right).abs().max()) < 0.02  # int8, twice
    assert np.abs(made.predicted()[IMAGES:] - predicted.numpy()).max() < 0.02


def test_it_opens_and_answers(source: Path, tmp_path: Path) -> None:
    engine = Engine.open(extend(source, tmp_path / "made", 70, shard_rows=16), "cpu")
    picture = engine.store.root / engine.store.paths[7]
    result = engine.query(picture, like=["pattern"], top_k=5)
    assert (result.gallery, len(result)) == (70, 5)
    assert len(engine.store.manifest.views) == len(engine.schema.attributes)


def test_the_same_seed_makes_the_same_index_whatever_happens(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_store(extend(source, tmp_path / "one", 100, shard_rows=16)).manifest
    other = open_store(extend(source, tmp_path / "other", 100, seed=1, shard_rows=16)).manifest
    assert first.content != other.content

    whole, made = extended_store._make, []

    def dies(*arguments: object) -> object:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(arguments)
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(extended_store, "_make", dies)
    with pytest.raises(KeyboardInterrupt):
        extend(source, tmp_path / "two", 100, shard_rows=16)
    with pytest.raises(DataError, match="not finished"):
        open_store(tmp_path / "two")
    made.clear()
    second = open_store(extend(source, tmp_path / "two", 100, shard_rows=16)).manifest
    assert len(made) < 5, "goes on, does not start anew"
    assert (second.shards, second.gallery) == (first.shards, first.gallery)
    assert [view.file for view in second.views] == [view.file for view in first.views]


def test_an_index_that_fits_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marks() -> dict[str, tuple[int, str]]:
        files = [p for p in (tmp_path / "made").rglob("*") if p.is_file()]
        return {
            str(p): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
            for p in files
        }

    extend(source, tmp_path / "made", 60, shard_rows=16)
    before = marks()
    extend(source, tmp_path / "made", 60, shard_rows=16)
    assert marks() == before
    made = open_store(extend(source, tmp_path / "made", 50, shard_rows=16))
    assert len(made) == 50
    made.check()
    monkeypatch.setattr(extended_store, "_make", None)  # no shard is made again for a view
    extend(source, tmp_path / "made", 50, shard_rows=16, views=("none",))
    assert [v.name for v in open_store(tmp_path / "made").manifest.views] == ["all unknown"]


@pytest.mark.parametrize(("rows", "shard_rows"), [(0, 16), (10, 0)])
def test_sizes_below_one_are_refused(
    source: Path, tmp_path: Path, rows: int, shard_rows: int
) -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        extend(source, tmp_path / "made", rows, shard_rows=shard_rows)
