"""Banks of stored maps whose I and P are of other shapes than M2Fashion's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from training.datasets import load_dataset
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.maps import bank_from_images
from training.models.config import ModelConfig, build_model, variant

SMALL = Preprocessing(size=32)
SHAPES = {
    "triplet": ((64, 1, 1), (64, 1, 1)),
    "csn": ((64, 1, 1), (64, 1, 1)),
    "asen": ((64, 4, 4), (512, 4, 4)),
    "asenet-v2": ((64, 4, 4), (512, 4, 4)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_bank_embeds_and_predicts_as_the_model_does(name: str, tmp_path: Path) -> None:
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 12)))
    torch.manual_seed(0)
    config = variant(name, ModelConfig("resnet18", "layer1", 4))
    model = build_model(dataset.schema, config, 2).eval()
    rows = np.array([7, 2, 10], dtype=np.int64)
    bank, failures = bank_from_images(model, dataset, rows, Reading(SMALL))
    assert not failures
    assert (bank.maps.shape[1:], bank.keys.shape[1:]) == SHAPES[name]
    pixels = torch.from_numpy(np.stack([SMALL.open(dataset.root / dataset.paths[r]) for r in rows]))
    condition = dataset.schema.type_condition(1)
    with torch.inference_mode():
        images = normalise(pixels, SMALL)
        z = model(images, torch.from_numpy(condition).float().unsqueeze(0)).numpy()
        chances = model.predict(model.features(images)).numpy()
        pooled = torch.nn.functional.normalize(model.trunk(images).mean((2, 3)), dim=-1).numpy()
    np.testing.assert_allclose(bank.embed(condition, bank.rows, chunk=2), z, atol=2e-3)
    np.testing.assert_allclose(bank.chances, chances, atol=2e-3)
    np.testing.assert_allclose(bank.pooled, pooled, atol=1e-6)
