"""A gallery of small generated pictures, an untrained model, and an index of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from indexer.build.build import BuildOptions, BuildReport, build_index
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig, build_model

_COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 210)}
_SPLITS = ("train", "train", "valid", "test")
_SIZE = 32


@dataclass(frozen=True)
class SmallGallery:
    """A folder with `shop/` (images and labels.csv) and `model/`."""

    folder: Path

    @property
    def shop(self) -> Path:
        """The data set, a catalogue."""
        return self.folder / "shop"

    @property
    def model(self) -> Path:
        """A checkpoint."""
        return self.folder / "model"

    def build(self, out: Path, index_factory: str | None = None) -> BuildReport:
        """Build an index of all images, in shards of 8.

        Args:
            out: the index.
            index_factory: how it is searched.
        """
        dataset = load_dataset(str(self.shop))
        return build_index(
            dataset,
            np.arange(len(dataset)),
            load_checkpoint(self.model),
            out,
            options=BuildOptions(
                batch_size=4, workers=0, shard_rows=8, recall=0.5, index_factory=index_factory
            ),
        )


def make_gallery(folder: Path, count: int, seed: int = 0) -> SmallGallery:
    """Draw `count` pictures, label them, and make a model of random weights."""
    gallery = SmallGallery(folder)
    write_pictures(gallery.shop, range(count), seed)
    write_labels(gallery.shop, range(count))
    schema = load_dataset(str(gallery.shop)).schema
    torch.manual_seed(seed)
    model = build_model(schema, ModelConfig(backbone="small", stage="layer3", grid=3, dim=16), 0)
    save_checkpoint(gallery.model, model, Preprocessing(size=_SIZE), (), {})
    return gallery


def write_pictures(shop: Path, numbers: Sequence[int], seed: int = 0) -> None:
    """Draw pictures `images/NNN.png`: noise over one of three colours, with a bar."""
    (shop / "images").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        generator = np.random.default_rng([seed, number])
        pixels = generator.integers(0, 50, (_SIZE + 4, _SIZE, 3))
        pixels += list(_COLOURS.values())[number % 3]
        if number % 2:
            pixels[:, 8:16] = generator.integers(0, 255, 3)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(shop / name_of(number))


def write_labels(shop: Path, numbers: Sequence[int]) -> None:
    """List pictures in `labels.csv`, in the order given."""
    with open(shop / "labels.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["image", "split", "colour", "bar", "item", "price"])
        for number in numbers:
            split = _SPLITS[number // 6 % len(_SPLITS)]
            bar = "barred" if number % 2 else "bare"
            colour = list(_COLOURS)[number % 3]
            rows.writerow([name_of(number), split, colour, bar, f"item {number // 2}", number])


def name_of(number: int) -> str:
    """Path of a picture within the gallery's folder."""
    return f"images/{number:03d}.png"
