"""DARN as circulated with ASEN: nine attributes of street and shop photographs.

The files are those of `asen_files`. `<dir>` of `pic/<dir>/<a>_<b>_<c>.jpg` maps to the category
and `<dir>/<a>_<b>` seems to name the item (in the published files `<a>_<b>` alone recurs in
about six folders), so paths must never be shown to a model. The published splits share items.

Huang et al., Cross-domain Image Retrieval with a Dual Attribute-aware Ranking Network, ICCV 2015.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets.asen_files import load_asen
from training.datasets.dataset import Dataset
from training.datasets.label_states import grouped_split


def load_darn(root: Path, item_grouped: bool = False) -> Dataset:
    """Read DARN's label files; splits that are absent are left out.

    Args:
        root: folder with the label files and `pic/`; DataError if they are missing or malformed.
        item_grouped: cut 8:1:1, so that no item straddles. The published query and candidate lists
            belong to the published splits and are then left out.
    """
    dataset = load_asen(root, "darn", "DARN")
    matches = [(p, re.fullmatch(r"(.*?[^_/]+_[^_/]+)_[^_/]+\.[^./]+", p)) for p in dataset.paths]
    names = [match[1] if match else path for path, match in matches]
    items = np.unique(np.array(names), return_inverse=True)[1].reshape(-1).astype(np.int64)
    if not item_grouped:
        return replace(dataset, items=items)
    note = "cut 8:1:1 by item; the published lists do not apply and are left out"
    notes = (*dataset.notes, note)
    return replace(dataset, items=items, splits=grouped_split(items), protocols={}, notes=notes)
