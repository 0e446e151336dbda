"""A working folder with a labelled catalogue, a trained model and an index, made once a session.

    shop/  the catalogue          runs/shop/  the run          indexes/shop/  the index

70 pictures of coloured discs and squares, two of them three times over, some without labels, some
with names that are hard to print; `item`, `price` and `sku` are no attributes.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_catalogue import write_tiny_catalogue

from indexer.build.build import BuildOptions, build_index
from retrieval.cli import _run
from retrieval.commands.train import validation_map
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.recipe import Recipe
from training.run import RunConfig, Setting, run_training

ODD_NAMES = ("[red]x[/].jpg", "blå kjole 旗袍.jpg", ":smile:.jpg", "two\nlines\x1b[31m.jpg")
COPIES = {"images/000.png": ("copy-a.png", "copy-b.png"), "images/004.png": ("z.png", "y.png")}
MODEL = ModelConfig(backbone="resnet18", stage="layer1", dim=32, grid=4)


@dataclass(frozen=True)
class Shop:
    """Where everything is; `root` is the folder to work in."""

    root: Path

    @property
    def catalogue(self) -> Path:
        return self.root / "shop"

    @property
    def run(self) -> Path:
        return self.root / "runs/shop"

    @property
    def index(self) -> Path:
        return self.root / "indexes/shop"

    def rows(self) -> list[dict[str, str]]:
        """`labels.csv`, one dict a picture, in the order of the index."""
        with open(self.catalogue / "labels.csv", newline="") as handle:
            return list(csv.DictReader(handle))


def make_shop(root: Path) -> Shop:
    """Draw, train for two epochs, build an index."""
    shop = Shop(root)
    write_tiny_catalogue(shop.catalogue, 60)
    _add_rows(shop.catalogue)
    dataset = load_dataset(str(shop.catalogue))
    recipe = Recipe(epochs=2, batch_size=20, freeze="none", crop=0.9)
    config = RunConfig(MODEL, recipe, Preprocessing(size=32))
    run_training(dataset, config, shop.run, Setting(validate=validation_map))
    checkpoint = load_checkpoint(shop.run)
    everything = np.arange(len(dataset))
    options = BuildOptions(workers=0, shard_rows=32)
    build_index(dataset, everything, checkpoint, shop.index, options=options)
    return shop


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line, in this process."""
    capsys.readouterr()
    code = _run([str(a) for a in arguments], debug=False)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _add_rows(folder: Path) -> None:
    """A multi-valued column `trim` that shares the value `red` with `colour`, columns that are no
    attributes, and more pictures."""
    file = folder / "labels.csv"
    with open(file, newline="") as handle:
        rows = list(csv.reader(handle))
    header, rows = rows[0], rows[1:]
    trims = ("red|gold", "gold", "lace", "")
    rows = [[*row, trims[number % 4]] for number, row in enumerate(rows)]
    of = {row[0]: row for row in rows}
    for original, copies in COPIES.items():
        for name in copies:
            shutil.copy(folder / original, folder / name)
            rows.append([name, "test", *of[original][2:]])
    (folder / "[red]x[").mkdir()
    for number, name in enumerate(ODD_NAMES):
        shutil.copy(folder / f"images/01{number}.png", folder / name)
        rows.append([name, "test", "", "", "", ""])  # nothing is known of it
    rows.append(["images/gone.png", "", "red", "disc", "round", ""])
    rows.append(["broken.jpg", "", "red", "disc", "round", ""])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    rows = [[*row, *_product(number)] for number, row in enumerate(rows)]
    with open(file, "w", newline="") as handle:
        csv.writer(handle).writerows([[*header, "trim", "item", "price", "sku"], *rows])


def _product(number: int) -> tuple[str, str, str]:
    """Item, price and sku of a row: three rows an item, now and then one that is not known."""
    item = "" if number % 10 == 9 else f"i{number % 20}"
    price = "" if number % 8 == 7 else f"{number * 1.5:g}"
    return item, price, f"a-{number % 5}" if number % 6 else ""
