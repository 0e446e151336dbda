"""The wardrobe that `retrieve wardrobe DIR` draws: a catalogue with nine attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.datasets import catalogue
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.wardrobe.vocabulary import ATTRIBUTES


def load(root: Path) -> Dataset:
    """Read a wardrobe in the catalogue layout.

    Args:
        root: folder with `labels.csv` and `images/`.

    Returns:
        The nine attributes in the order of `ATTRIBUTES`; only values that occur are in the schema.

    Raises:
        DataError: if the folder has no `labels.csv`, or a malformed one.
    """
    if not (root / "labels.csv").is_file():
        raise DataError(
            f"{root} holds no wardrobe (no labels.csv); `retrieve wardrobe {root}` makes one "
            "(for its DARN and DeepFashion layouts use --dataset darn or --dataset deepfashion)"
        )
    return replace(catalogue.load(root, ATTRIBUTES), name="wardrobe")
