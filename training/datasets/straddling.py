"""Items and images that the splits of a dataset do not keep apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from training.datasets.dataset import Dataset

Key = TypeVar("Key", int, str)


def straddling_notes(dataset: Dataset) -> list[str]:
    """Remarks on paths listed more than once, and on paths and items in more than one split.

    An adapter that cuts a dataset keeps them together; the splits that files state may not.
    """
    splits = dataset.splits.tolist()
    repeated = [path for path, times in Counter(dataset.paths).items() if times > 1]
    found = {
        "image paths listed more than once": repeated,
        "image paths in more than one split": _straddling(dataset.paths, splits),
    }
    notes = [f"{what}: {len(p):,}, first {p[0]!r}" for what, p in found.items() if p]
    if dataset.items is not None:
        items = dataset.items.tolist()
        if straddling := _straddling(items, splits):
            first = dataset.paths[items.index(straddling[0])]
            notes.append(f"items in more than one split: {len(straddling):,}, first of {first!r}")
    return notes


def _straddling(keys: Iterable[Key], splits: Iterable[str]) -> list[Key]:
    """Keys of rows in several splits, in the order of their first row; no split is none."""
    seen: dict[Key, set[str]] = {}
    for key, split in zip(keys, splits, strict=True):
        if split:
            seen.setdefault(key, set()).add(split)
    return [key for key, own in seen.items() if len(own) > 1]
