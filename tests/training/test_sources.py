import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.images.tensors import augment, draw_augmentation, normalise
from training.maps import bank_from_images
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.recipe import Recipe
from training.sampling import BatchPlan
from training.sources import Photographs, StoredMaps

SMALL = Preprocessing(size=32)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 42)))


@pytest.fixture
def model(dataset: Dataset) -> M2Fashion:
    torch.manual_seed(0)
    return M2Fashion(dataset.schema, ModelConfig("resnet18", "layer1", 4, 16), 2).eval()


def test_pictures_in_memory_equal_pictures_read_anew(dataset: Dataset, model: M2Fashion) -> None:
    (dataset.root / "images/003.png").write_bytes(b"broken")
    kept = Photographs(dataset, Reading(SMALL))
    streamed = Photographs(dataset, Reading(SMALL), memory=0)
    assert 3 not in kept.rows
    assert 3 in streamed.rows  # not read yet
    assert kept.failures[0][0] == "images/003.png"
    orders = [
        BatchPlan([5, 1, 9], [0, 1, 0]),
        BatchPlan([2, 7, 4], [0, 0, 0]),
    ]  # copies are for maps
    for (rows, images), (again, same) in zip(
        kept.batches(iter(orders)), streamed.batches(iter(orders)), strict=True
    ):
        assert rows == again
        assert torch.equal(images, same)
    (rows, images) = next(streamed.batches(iter([BatchPlan([3, 8], [0, 0])])))
    assert rows == [8]
    assert len(images) == 1
    banks = [source.validation_bank(model) for source in (kept, streamed)]
    assert banks[0] is not None
    assert banks[1] is not None
    condition = dataset.schema.type_condition(0)
    first, second = (bank.embed(condition, bank.rows) for bank in banks)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert len(banks[0].dataset) == len(first) == 7


def test_stored_maps_are_the_trunks_and_are_computed_once(
    dataset: Dataset, model: M2Fashion, tmp_path: Path
) -> None:
    done: list[int] = []

    def source() -> StoredMaps:
        done.clear()
        recipe = Recipe(copies=0)
        return StoredMaps(
            model, dataset, Reading(SMALL, 0, done.append), tmp_path / "cache", recipe
        )

    order = BatchPlan([4, 0, 11], [0, 0, 0])

    fresh = source()
    assert sum(done) == len(fresh.rows) + 7
    rows, maps = next(fresh.batches(iter([order])))
    pixels = torch.from_numpy(np.stack([SMALL.open(dataset.root / dataset.paths[r]) for r in rows]))
    with torch.inference_mode():
        expected = model.trunk(normalise(pixels, SMALL))
    torch.testing.assert_close(maps, expected, atol=2e-3, rtol=1e-3)  # stored in half precision

    files = sorted((tmp_path / "cache").iterdir())
    before = [f.stat().st_mtime_ns for f in files]
    again = source()
    assert torch.equal(next(again.batches(iter([order])))[1], maps)
    assert [f.stat().st_mtime_ns for f in sorted((tmp_path / "cache").iterdir())] == before
    # A changed picture, or another backbone, must not be answered from the cache.
    os.utime(dataset.root / dataset.paths[4], ns=(1, 1))
    source()
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    with torch.no_grad():
        next(model.backbone.parameters()).add_(1)
    source()
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    # Nor may maps with the lower stages stand in for those without, whose network is the same.
    plain = M2Fashion(dataset.schema, replace(model.config, lower_stages=False), 2).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    model = plain
    assert next(source().batches(iter([order])))[1].shape == (3, 64, 4, 4)


def test_copies_are_the_trunks_of_mirrored_and_cropped_pictures(
    dataset: Dataset, model: M2Fashion, tmp_path: Path
) -> None:
    (dataset.root / "images/003.png").write_bytes(b"broken")
    recipe = Recipe(copies=2, crop=0.6, precision="float32")
    done: list[int] = []
    source = StoredMaps(model, dataset, Reading(SMALL, 0, done.append), tmp_path / "cache", recipe)
    train = dataset.rows_of("train")
    assert 3 in train
    assert source.rows.tolist() == [row for row in train if row != 3]
    assert sum(done) == len(train) + 7 + 2 * len(source.rows)
    rows, copies = [12, 0, 4, 12], [1, 2, 0, 2]
    read, maps = next(source.batches(iter([BatchPlan(rows, copies)])))
    assert read == rows
    for row, copy, found in zip(rows, copies, maps, strict=True):
        pixels = torch.from_numpy(SMALL.open(dataset.root / dataset.paths[row])).unsqueeze(0)
        image = normalise(pixels, SMALL)
        if copy:  # as all pictures' changes are drawn at once, in the order of their rows
            generator = torch.Generator().manual_seed(copy)
            drawn = draw_augmentation(len(source.rows), 1, True, 0.6, 0.0, generator)
            place = source.rows.tolist().index(row)
            image = augment(image, drawn.of(slice(place, place + 1)))
        with torch.inference_mode():
            expected = model.trunk(image)[0]
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    assert not torch.equal(maps[0], maps[3])
    bank = source.validation_bank(model)
    assert bank is not None
    assert len(bank.dataset) == 7
    # Another crop makes other copies; the pictures themselves are read from the cache.
    done.clear()
    other = replace(recipe, crop=0.9)
    StoredMaps(model, dataset, Reading(SMALL, 0, done.append), tmp_path / "cache", other)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 5


def test_a_bank_embeds_and_predicts_as_the_model_does(dataset: Dataset, model: M2Fashion) -> None:
    rows = np.array([30, 2, 17], dtype=np.int64)
    bank, failures = bank_from_images(model, dataset, rows, Reading(SMALL))
    assert not failures
    pixels = torch.from_numpy(np.stack([SMALL.open(dataset.root / dataset.paths[r]) for r in rows]))
    condition = dataset.schema.condition(present=["red"], absent=["disc"])
    with torch.inference_mode():
        images = normalise(pixels, SMALL)
        z = model(images, torch.from_numpy(condition).float().unsqueeze(0)).numpy()
        chances = model.predict(model.features(images)).numpy()
        # The floor knows the last stage alone.
        last = torch.nn.functional.adaptive_avg_pool2d(model.backbone(images), 4)
        pooled = torch.nn.functional.normalize(last.mean((2, 3)), dim=-1).numpy()
    order = np.array([2, 0], dtype=np.int64)
    assert bank.dataset.paths == [dataset.paths[row] for row in rows]
    np.testing.assert_allclose(bank.embed(condition, order, chunk=1), z[order], atol=2e-3)
    np.testing.assert_allclose(bank.chances, chances, atol=2e-3)
    np.testing.assert_allclose(bank.pooled, pooled, atol=1e-6)


def test_training_crops_the_whole_picture_and_an_index_shows_its_middle(
    dataset: Dataset, model: M2Fashion, tmp_path: Path
) -> None:
    """A cut that hid half a garment from training would be no cut but another picture."""
    cut = Preprocessing(size=32, resize=48)
    whole = Preprocessing(size=32)
    picture = cut.open(dataset.root / dataset.paths[0])
    large = Preprocessing(size=48).open(dataset.root / dataset.paths[0])
    np.testing.assert_array_equal(picture, large[:, 8:40, 8:40])

    recipe = Recipe(batch_size=4, copies=1, crop=0.75)
    stored = [
        StoredMaps(model, dataset, Reading(shown), tmp_path, recipe) for shown in (cut, whole)
    ]
    order = [BatchPlan([0, 1], [1, 1]), BatchPlan([0, 1], [0, 0])]
    (_, copies), (_, own) = stored[0].batches(iter(order))
    (_, whole_copies), (_, whole_own) = stored[1].batches(iter(order))
    torch.testing.assert_close(copies, whole_copies, rtol=0, atol=0)
    assert not torch.equal(own, whole_own)

    photographs = Photographs(dataset, Reading(cut))
    (_, images), *_ = photographs.batches(iter([BatchPlan([0, 1], [0, 0])]))
    expected = np.stack([whole.open(dataset.root / dataset.paths[n]) for n in (0, 1)])
    torch.testing.assert_close(images, normalise(torch.from_numpy(expected), whole))
