"""Which adapter reads a folder, told by its files."""

from __future__ import annotations

from pathlib import Path

from training.datasets.asen_files import has_asen_files
from training.datasets.dataset import SPLITS
from training.datasets.fashionai import label_files
from training.datasets.label_lines import lines_of
from training.datasets.locate import expected
from training.errors import DataError

PREFIXES = {"pic/": "darn", "img/": "deepfashion", "fashionAI_attributes_": "fashionai"}
"""How image paths begin in the published ASEN files, which are otherwise alike."""


def detect(folder: Path) -> str:
    """Name of the adapter for a folder.

    `labels.csv` is a catalogue, DeepFashion's lists and FashionAI's label files are those; ASEN's
    files are told apart by the name of the folder, else by how their image paths begin.

    Raises:
        DataError: if no adapter reads such files; the message lists what each expects.
    """
    if (folder / "labels.csv").is_file():
        return "catalogue"
    lists = ("Anno_coarse", "Anno", "Anno_fine", ".")
    if any((folder / name / "list_attr_cloth.txt").is_file() for name in lists):
        return "deepfashion"
    if has_asen_files(folder):
        name = folder.resolve().name.casefold()
        if name in PREFIXES.values():
            return name
        file = next(f for s in SPLITS if (f := folder / f"filenames_{s}.txt").is_file())
        first = next((text for _, text in lines_of(file)), "")
        for prefix, name in PREFIXES.items():
            if first.startswith(prefix):
                return name
    elif label_files(folder):
        return "fashionai"
    formats = ". ".join(f"{n}: {expected(n)}" for n in ("catalogue", "darn", "deepfashion"))
    raise DataError(f"{folder} holds no dataset that an adapter reads. {formats}")
