"""Landmarks follow their picture: a dot is drawn where a landmark is, and looked for afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images.batches import Reading
from training.images.landmarks import CUT_OFF, NONE, OCCLUDED, VISIBLE, in_square
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig, build_model, variant
from training.recipe import Recipe, RunConfig
from training.run import run_training
from training.sampling import BatchPlan
from training.schema import Attribute, Schema
from training.sources import Photographs, Source, StoredMaps
from training.step import Batch, Objective

SIZES = ((90, 60), (48, 96), (70, 70))
PLACES = ((30, 24), (20, 40), (33, 40))
UNWEIGHTED = {
    f"{term}_weight": 0.0
    for term in ("category", "attribute", "triplet", "value", "contrast", "nuance")
}
SCHEMA = Schema((Attribute("colour", ("red", "blue")),))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three black pictures with a white square around slot 0; slot 2 is cut off, 3 unknown."""
    landmarks = np.full((3, 4, 3), np.nan, np.float32)
    for number, ((width, height), (x, y)) in enumerate(zip(SIZES, PLACES, strict=True)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y - 3 : y + 3, x - 3 : x + 3] = 255
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        landmarks[number, :3] = (0, x, y), (1, x + 5, y), (2, 0, 0)
    return Dataset(
        name="dots",
        root=tmp_path,
        schema=SCHEMA,
        paths=[f"{n}.png" for n in range(3)],
        labels=np.array([[1, -1], [-1, 1], [1, -1]], np.int8),
        category=np.full(3, -1),
        category_names=(),
        splits=np.array(["train"] * 3),
        landmarks=landmarks,
    )


def brightest(image: np.ndarray) -> np.ndarray:
    """Centre of what is bright in [H, W], x and y in 0..1."""
    y, x = np.nonzero(image > (image.min() + image.max()) / 2)
    return (np.array([x.mean(), y.mean()]) + 0.5) / image.shape[::-1]


@pytest.mark.parametrize("mode", ["pad", "stretch", "crop"])
@pytest.mark.parametrize("resize", [0, 72])
def test_a_square_shows_them_where_it_shows_the_picture(dataset, mode, resize) -> None:
    shown = Preprocessing(64, mode, (0.0, 0.0, 0.0), resize=resize)
    found = in_square(dataset, np.arange(3), shown)
    for number, path in enumerate(dataset.paths):
        expected = brightest(shown.open(dataset.root / path)[0])
        np.testing.assert_allclose(found[number, 0, :2], expected, atol=0.012)
    assert found[:, :, 2].tolist() == [[VISIBLE, OCCLUDED, CUT_OFF, NONE]] * 3
    assert not found[:, 3, :2].any()


@pytest.mark.parametrize("copies", [0, 3])
@pytest.mark.parametrize("frozen", [False, True])
def test_views_that_are_trained_on_take_them_along(dataset, tmp_path, frozen, copies) -> None:
    """F is the picture itself, smaller, so that the dot can be looked for in it."""
    model = build_model(SCHEMA, ModelConfig("small", "layer2", 16, 8, lower_stages=False))
    model.trunk = lambda images: torch.nn.functional.avg_pool2d(images, 2)
    given = []
    model.own_losses = lambda trunk, known: given.append((trunk, known)) or {"own": trunk.sum()}
    recipe = Recipe(**UNWEIGHTED, copies=copies, freeze="all" if frozen else "none", drop_maps=0.0)
    reading = Reading(Preprocessing(64, mean=(0.0, 0.0, 0.0)))
    source: Source = Photographs(dataset, reading)
    if frozen:
        source = StoredMaps(model, dataset, reading, tmp_path, recipe)
    source.locate()
    none = torch.zeros(3, dtype=torch.int64)
    for number in range(8):
        order = BatchPlan([0, 1, 2], [number % (copies + 1) if frozen else 0] * 3)
        _, inputs = next(source.batches(iter([order])))
        marks = source.landmarks(order)
        batch = Batch(inputs, torch.from_numpy(dataset.labels).float(), none, none, None, marks)
        Objective(model, recipe, recipe.freeze)(batch, torch.Generator().manual_seed(number))
    seen = mirrored = 0
    for trunk, known in given:
        for image, marks in zip(trunk[:, 0].numpy(), known.landmarks.numpy(), strict=True):
            slot = int(marks[2, 2] == NONE)  # in a mirror 0 is called 1, and 3 called 2
            mirrored += slot
            if marks[slot, 2] == VISIBLE and np.abs(marks[slot, :2] - 0.5).max() < 0.38:
                np.testing.assert_allclose(marks[slot, :2], brightest(image), atol=0.04)
                seen += 1
    assert seen > 10
    assert mirrored > 3


def test_a_model_that_learns_from_them_refuses_data_without(dataset, tmp_path) -> None:
    config = RunConfig(variant("fashionnet", ModelConfig("small", "layer2", 4)))
    for marks in (None, np.full((3, 8, 3), np.nan, np.float32)):
        without = replace(dataset, landmarks=marks)
        with pytest.raises(DataError, match="FashionNet learns from landmarks, and dots has none"):
            run_training(without, config, tmp_path / "run")
