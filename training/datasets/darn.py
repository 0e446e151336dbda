"""DARN as circulated with ASEN: nine attributes of street and shop photographs.

The files are those of `asen_files`. `<dir>` of `pic/<dir>/<a>_<b>_<c>.jpg` maps to the category
and `<dir>/<a>_<b>` seems to name the item (in the published files `<a>_<b>` alone recurs in
about six folders), so paths must never be shown to a model. The published splits share items;
`item_grouped` cuts anew so that none straddles.

Huang et al., Cross-domain Image Retrieval with a Dual Attribute-aware Ranking Network, ICCV 2015.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.asen_dataset import load_asen
from training.datasets.dataset import Dataset
from training.datasets.grouped_split import grouped_split


def load(root: Path, item_grouped: bool = False, seed: int = 0) -> Dataset:
    """Read DARN's label files; splits that are absent are left out.

    Args:
        root: folder with the label files and `pic/`.
        item_grouped: cut 8:1:1 by item instead of the published splits. The published query and
            candidate lists belong to the published splits and are then left out.
        seed: seed of that cut.

    Returns:
        Rows in the order train, valid, test. Attributes as `meta.json` names them; the value
        names are numbers unless `names.json` gives better ones.

    Raises:
        DataError: missing or malformed files.
    """
    dataset = load_asen(root, "darn", "DARN")
    items = item_numbers(dataset.paths)
    if not item_grouped:
        return replace(dataset, items=items)
    note = "cut 8:1:1 by item; the published lists do not apply and are left out"
    return replace(
        dataset,
        items=items,
        splits=grouped_split(items, seed=seed),
        protocols={},
        notes=(*dataset.notes, note),
    )


def item_numbers(paths: Sequence[str]) -> NDArray[np.int64]:
    """Number the items that `.../<dir>/<a>_<b>_<c>.jpg` paths name.

    A path of another form is an item of its own.

    Returns:
        Item of each path [N] int64, numbered in the order of their names.
    """
    matches = [(p, re.fullmatch(r"(.*?[^_/]+_[^_/]+)_[^_/]+\.[^./]+", p)) for p in paths]
    names = [match[1] if match else path for path, match in matches]
    _, numbers = np.unique(np.array(names), return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)
