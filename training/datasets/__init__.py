"""Dataset adapters: files as published or as a user keeps them, in; a `Dataset`, out.

What reads them is imported when one is read: the command line begins here, and queries read none.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import DataError, UsageError

if TYPE_CHECKING:
    from training.datasets.columns import Told
    from training.datasets.dataset import Dataset
    from training.schema import Schema

ADAPTERS = {
    "catalogue": "training.datasets.catalogue:load",
    "darn": "training.datasets.asen:load_darn",
    "deepfashion": "training.datasets.deepfashion:load",
    "fashionai": "training.datasets.asen:load_fashionai",
}
"""Name -> `module:function` that reads a folder. A new dataset is its file and a line here;
`labels.SOURCES` says where those that cannot be shipped are to be had."""

PREFIXES = {"pic/": "darn", "img/": "deepfashion", "fashionAI_attributes_": "fashionai"}
"""How image paths begin in the published ASEN files, which are otherwise alike."""


def load_dataset(
    name_or_folder: str,
    root: Path | None = None,
    attributes: Sequence[str] | None = None,
    item_column: str | None = None,
    told: Told | None = None,
    schema: Schema | None = None,
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
        told: what else is told of a catalogue's table, instead of guessed.
        schema: of a model: its attributes are kept where `attributes` does not say which.

    Raises:
        UsageError: neither a name nor a folder (the message lists the nearest names), a folder
            together with `root`, an unknown attribute, or an item column that is not there.
        DataError: missing or malformed files.
    """
    from training.datasets import catalogue
    from training.datasets.labels import find_root
    from training.schema import nearest, normalise_name

    name = name_or_folder.casefold()
    if name not in ADAPTERS:
        folder = Path(name_or_folder).expanduser()
        if not name_or_folder or not folder.is_dir():
            near = nearest(name, list(ADAPTERS), cutoff=0.4)
            raise UsageError(
                f"unknown dataset {name_or_folder!r}: neither an adapter nor a folder; {near}"
            )
        if root is not None:
            raise UsageError(
                f"{name_or_folder!r} is a folder already; leave --root {root} out, or name one of "
                f"the adapters {', '.join(ADAPTERS)}"
            )
        name, root = detect(folder), folder
    found = find_root(name, root)
    known = None if schema is None else [attribute.name for attribute in schema.attributes]
    if name == "catalogue":
        return catalogue.load(found, attributes, item_column, told, known)
    for column in (item_column, *(() if told is None else told.columns)):
        if column is not None:
            raise UsageError(
                f"{name} has no item column or other {column!r}: only a catalogue has columns"
            )
    module, _, function = ADAPTERS[name].partition(":")
    dataset: Dataset = getattr(importlib.import_module(module), function)(found)
    if attributes is None and known is not None:
        own = {normalise_name(attribute.name) for attribute in dataset.schema.attributes}
        # Where it lacks some, its own: what only one of them knows can be said then.
        attributes = known if own >= set(map(normalise_name, known)) else None
    return dataset if attributes is None else dataset.select_attributes(attributes)


def detect(folder: Path) -> str:
    """Name of the adapter for a folder.

    `labels.csv`, or another table so called, is a catalogue, DeepFashion's lists and FashionAI's
    label files are those; ASEN's files are told apart by the name of the folder, else by how their
    image paths begin. Any other table is a catalogue, and so are folders of pictures without one.

    Raises:
        DataError: if no adapter reads such files; the message lists what each expects.
    """
    from training.datasets.asen import has_asen_files, label_files
    from training.datasets.dataset import SPLITS
    from training.datasets.labels import expected, lines_of
    from training.datasets.tables import class_pictures, table_files, tables_in

    if any(file.stem.casefold() == "labels" for file in tables_in(folder)):
        return "catalogue"
    lists = ("Anno_coarse", "Anno", "Anno_fine", ".")
    if any((folder / name / "list_attr_cloth.txt").is_file() for name in lists):
        return "deepfashion"
    if has_asen_files(folder):
        name = folder.resolve().name.casefold()
        if name in PREFIXES.values():
            return name
        file = next(f for s in SPLITS if (f := folder / f"filenames_{s}.txt").is_file())
        first = next((line.text for line in lines_of(file)), "")
        for prefix, name in PREFIXES.items():
            if first.startswith(prefix):
                return name
    elif label_files(folder):
        return "fashionai"
    elif table_files(folder) or class_pictures(folder):
        return "catalogue"
    formats = ". ".join(f"{n}: {expected(n)}" for n in ("catalogue", "darn", "deepfashion"))
    raise DataError(f"{folder} holds no dataset that an adapter reads. {formats}")
