import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.map_bank import bank_from_images
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.preprocessing import Preprocessing
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
    kept = Photographs(dataset, SMALL, 0, lambda _: None)
    streamed = Photographs(dataset, SMALL, 0, lambda _: None, memory=0)
    assert 3 not in kept.rows
    assert kept.failures[0][0] == "images/003.png"
    orders = [[5, 1, 9], [2, 7, 4]]
    for (rows, images), (again, same) in zip(
        kept.batches(iter(orders)), streamed.batches(iter(orders)), strict=True
    ):
        assert rows == again
        assert torch.equal(images, same)
    (rows, images) = next(streamed.batches(iter([[3, 8]])))
    assert rows == [8]
    assert len(images) == 1
    banks = [source.validation_bank(model) for source in (kept, streamed)]
    assert banks[0] is not None
    assert banks[1] is not None
    condition = dataset.schema.type_condition(0)
    first, second = (bank.embed(condition, bank.rows) for bank, _ in banks)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert len(banks[0][1]) == len(first) == 7


def test_stored_maps_are_the_trunks_and_are_computed_once(
    dataset: Dataset, model: M2Fashion, tmp_path: Path
) -> None:
    done: list[int] = []

    def source() -> StoredMaps:
        done.clear()
        return StoredMaps(model, dataset, SMALL, tmp_path / "cache", "cpu", 0, done.append)

    fresh = source()
    assert sum(done) == len(fresh.rows) + 7
    rows, maps = next(fresh.batches(iter([[4, 0, 11]])))
    pixels = torch.from_numpy(np.stack([SMALL.open(dataset.root / dataset.paths[r]) for r in rows]))
    with torch.inference_mode():
        expected = model.trunk(SMALL.normalise(pixels))
    torch.testing.assert_close(maps, expected, atol=2e-3, rtol=1e-3)  # stored in half precision

    files = sorted((tmp_path / "cache").iterdir())
    before = [f.stat().st_mtime_ns for f in files]
    again = source()
    assert torch.equal(next(again.batches(iter([[4, 0, 11]])))[1], maps)
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
    assert next(source().batches(iter([[4, 0, 11]])))[1].shape == (3, 64, 4, 4)


def test_a_bank_embeds_and_predicts_as_the_model_does(dataset: Dataset, model: M2Fashion) -> None:
    rows = np.array([30, 2, 17], dtype=np.int64)
    bank, failures = bank_from_images(model, dataset, rows, SMALL, 0, lambda _: None, batch_size=2)
    assert not failures
    pixels = torch.from_numpy(np.stack([SMALL.open(dataset.root / dataset.paths[r]) for r in rows]))
    condition = dataset.schema.condition(present=["red"], absent=["disc"])
    with torch.inference_mode():
        images = SMALL.normalise(pixels)
        z = model(images, torch.from_numpy(condition).float().unsqueeze(0)).numpy()
        chances = model.predict(model.features(images)).numpy()
        # The floor knows the last stage alone.
        last = torch.nn.functional.adaptive_avg_pool2d(model.backbone(images), 4)
        pooled = torch.nn.functional.normalize(last.mean((2, 3)), dim=-1).numpy()
    order = np.array([17, 30], dtype=np.int64)
    np.testing.assert_allclose(bank.embed(condition, order, chunk=1), z[[2, 0]], atol=2e-3)
    np.testing.assert_allclose(bank.predict(order, chunk=1), chances[[2, 0]], atol=2e-3)
    np.testing.assert_allclose(bank.pooled, pooled, atol=1e-6)
    with pytest.raises(KeyError):
        bank.embed(condition, np.array([3], dtype=np.int64))
