"""The scales of the stages: measured on the training images, then fixed, kept by checkpoints."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_catalogue import write_tiny_catalogue

from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.backbones import build_backbone
from training.models.config import ModelConfig
from training.models.embedder import ConditionedEmbedder
from training.recipe import Recipe
from training.run import RunConfig, Setting, run_training
from training.sources import Photographs

SMALL = Preprocessing(size=32)
CONFIG = RunConfig(
    ModelConfig("small", "layer2", 3, 8),
    Recipe(epochs=1, batch_size=20, learning_rate=3e-3, crop=0.8),
    SMALL,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "shapes")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    network = build_backbone("small", "layer2")
    with torch.no_grad():
        for _ in range(40):  # batch norms that have seen something
            network(torch.randn(16, 3, 32, 32))
    save_file(network.state_dict(), path)
    return str(path)


def _train(dataset: Dataset, config: RunConfig, out: Path) -> ConditionedEmbedder:
    run_training(dataset, config, out)  # without a figure the last epoch is the best
    return load_checkpoint(out).model


def _training_trunk(dataset: Dataset, model: ConditionedEmbedder) -> torch.Tensor:
    paths = [dataset.root / dataset.paths[row] for row in dataset.rows_of("train")]
    pixels = torch.from_numpy(np.stack([SMALL.open(path) for path in paths]))
    with torch.inference_mode():
        return model.trunk(normalise(pixels, SMALL))


@pytest.mark.parametrize("frozen", [True, False])
def test_training_maps_get_mean_0_and_variance_1_in_every_channel(
    dataset: Dataset, weights: str, tmp_path: Path, frozen: bool
) -> None:
    # No steps of the backbone that count, so that the maps stay those that were measured.
    recipe = replace(
        CONFIG.recipe, freeze="all" if frozen else "none", backbone_learning_rate=1e-12
    )
    model = _train(dataset, replace(CONFIG, recipe=recipe, weights=weights), tmp_path / "run")
    trunk = _training_trunk(dataset, model)
    raw = trunk.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(trunk.shape[1], -1)
    assert model.last_stage.stop == 6 + 48 + 96 == len(raw)
    np.testing.assert_allclose(model.standardise.running_mean, raw.mean(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.standardise.running_var, raw.var(1), rtol=5e-3, atol=1e-6)
    with torch.inference_mode():
        even = model.standardise(trunk).transpose(0, 1).flatten(1)
    alive = raw.var(1) > 1e-2  # beside which the norm's 1e-5 is nothing
    assert alive.mean() > 0.9
    np.testing.assert_allclose(even.mean(1)[alive], 0, atol=5e-3)
    np.testing.assert_allclose(even.var(1)[alive], 1, atol=1e-2)


def test_training_on_does_not_move_them_and_a_resumed_run_measures_nothing_anew(
    dataset: Dataset, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, weights=weights)
    longer = replace(config, recipe=replace(config.recipe, epochs=3))
    first = _train(dataset, config, tmp_path / "one").standardise.state_dict()
    last = _train(dataset, longer, tmp_path / "three").standardise.state_dict()
    assert all(torch.equal(first[key], last[key]) for key in first)
    monkeypatch.setattr("training.trainer.Trainer._calibrate", None)  # a call would fail
    run_training(dataset, longer, tmp_path / "three", Setting(resume=True))


def test_from_scratch_they_are_learned_with_the_network(dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(CONFIG.recipe, freeze="none")
    model = _train(dataset, replace(CONFIG, recipe=recipe), tmp_path / "run")
    assert int(model.standardise.num_batches_tracked) == 3


def test_a_split_of_unreadable_images_is_refused(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tiny_catalogue(tmp_path / "shapes", 30)
    for path in (root / "images").iterdir():
        path.write_bytes(b"not a picture")
    monkeypatch.setattr("training.run.Photographs", partial(Photographs, memory=0))
    recipe = replace(CONFIG.recipe, freeze="none")
    with pytest.raises(DataError, match="none of 20 training images could be read"):
        _train(
            load_dataset(str(root)), replace(CONFIG, recipe=recipe, weights=weights), tmp_path / "r"
        )
