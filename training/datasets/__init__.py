"""Dataset adapters: files as published or as a user keeps them, in; a `Dataset`, out."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from training.datasets.attribute_selection import select_attributes
from training.datasets.dataset import Dataset
from training.datasets.detect import detect
from training.datasets.locate import find_root
from training.errors import UsageError
from training.schema import Schema

ADAPTERS = {
    "catalogue": "training.datasets.catalogue:load",
    "darn": "training.datasets.darn:load",
    "deepfashion": "training.datasets.deepfashion:load",
    "fashionai": "training.datasets.fashionai:load",
    "wardrobe": "training.datasets.wardrobe:load",
}
"""Adapter name -> `module:function`; the function takes the root folder and gives a `Dataset`."""


def adapter(name: str) -> Callable[[Path], Dataset]:
    """Import the loader of adapter `name`, a key of `ADAPTERS`."""
    module, _, function = ADAPTERS[name].partition(":")
    loader: Callable[[Path], Dataset] = getattr(importlib.import_module(module), function)
    return loader


def load_dataset(
    name_or_folder: str,
    root: Path | None = None,
    attributes: Sequence[str] | None = None,
    item_column: str | None = None,
) -> Dataset:
    """Load a dataset by the name of its adapter, or a folder whose files tell what it is.

    Args:
        name_or_folder: a key of `ADAPTERS`, in any case, or a path to a folder.
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
        from training.datasets import catalogue

        return catalogue.load(found, attributes, item_column=item_column)
    if item_column is not None:
        raise UsageError(
            f"{name} has no item column {item_column!r}: only a catalogue's labels.csv has columns"
        )
    dataset = adapter(name)(found)
    return dataset if attributes is None else select_attributes(dataset, attributes)


def load_with_schema(
    schema: Schema, name_or_folder: str, root: Path | None = None, item_column: str | None = None
) -> Dataset:
    """`load_dataset` with the attributes of a model's schema, or with its own where it lacks some.

    Raises:
        UsageError, DataError: as `load_dataset`.
    """
    names = [attribute.name for attribute in schema.attributes]
    try:
        return load_dataset(name_or_folder, root, names, item_column)
    except UsageError:
        return load_dataset(name_or_folder, root, None, item_column)  # raises if that is not it
