"""Dataset adapters: files as published or as a user keeps them, in; a `Dataset`, out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from training.datasets import asen, catalogue, deepfashion
from training.datasets.dataset import SPLITS, Dataset
from training.datasets.labels import expected, find_root, lines_of
from training.errors import DataError, UsageError
from training.schema import Schema

ADAPTERS: dict[str, Callable[[Path], Dataset]] = {
    "catalogue": catalogue.load,
    "darn": asen.load_darn,
    "deepfashion": deepfashion.load,
    "fashionai": asen.load_fashionai,
}
"""Name -> what reads a folder; `labels.SOURCES` says which files each expects."""

PREFIXES = {"pic/": "darn", "img/": "deepfashion", "fashionAI_attributes_": "fashionai"}
"""How image paths begin in the published ASEN files, which are otherwise alike."""


def load_dataset(
    name_or_folder: str,
    root: Path | None = None,
    attributes: Sequence[str] | None = None,
    item_column: str | None = None,
) -> Dataset:
    """Load a dataset by a key of `ADAPTERS`, in any case, or a folder whose files tell what it is.

    Args:
        root: the dataset's folder; None looks in `$RETRIEVE_DATA/<name>`, then `data/<name>`.
            Only with a name.
        attributes: attributes to keep, in this order; None keeps all. For a catalogue these are
            columns, and one that would be skipped as text can be named too.
        item_column: the column of a catalogue that tells which images show one item; None:
            `item`, if there is one. The other adapters know their items themselves.

    Raises:
        UsageError: neither a name nor a folder (the message lists the nearest names), a folder
            together with `root`, an unknown attribute, or an item column that is not there.
        DataError: missing or malformed files.
    """
    name = name_or_folder.casefold()
    if name not in ADAPTERS:
        folder = Path(name_or_folder).expanduser()
        if not name_or_folder or not folder.is_dir():
            near = difflib.get_close_matches(name, ADAPTERS, n=3, cutoff=0.4) or list(ADAPTERS)
            raise UsageError(
                f"unknown dataset {name_or_folder!r}: neither an adapter nor a folder; nearest: "
                f"{', '.join(near)}"
            )
        if root is not None:
            raise UsageError(
                f"{name_or_folder!r} is a folder already; leave --root {root} out, or name one of "
                f"the adapters {', '.join(ADAPTERS)}"
            )
        name, root = detect(folder), folder
    found = find_root(name, root)
    if name == "catalogue":
        return catalogue.load(found, attributes, item_column)
    if item_column is not None:
        raise UsageError(
            f"{name} has no item column {item_column!r}: only a catalogue's labels.csv has columns"
        )
    dataset = ADAPTERS[name](found)
    return dataset if attributes is None else dataset.select_attributes(attributes)


def load_with_schema(
    schema: Schema, name_or_folder: str, root: Path | None = None, item_column: str | None = None
) -> Dataset:
    """`load_dataset` with the attributes of a model's schema, or its own where it lacks some."""
    names = [attribute.name for attribute in schema.attributes]
    try:
        return load_dataset(name_or_folder, root, names, item_column)
    except UsageError:
        return load_dataset(name_or_folder, root, None, item_column)  # raises if that is not it


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
    if asen.has_asen_files(folder):
        name = folder.resolve().name.casefold()
        if name in PREFIXES.values():
            return name
        file = next(f for s in SPLITS if (f := folder / f"filenames_{s}.txt").is_file())
        first = next((line.text for line in lines_of(file)), "")
        for prefix, name in PREFIXES.items():
            if first.startswith(prefix):
                return name
    elif asen.label_files(folder):
        return "fashionai"
    formats = ". ".join(f"{n}: {expected(n)}" for n in ("catalogue", "darn", "deepfashion"))
    raise DataError(f"{folder} holds no dataset that an adapter reads. {formats}")
