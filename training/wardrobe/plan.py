"""Which pictures a wardrobe holds: labels, items and splits, before anything is drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from training.datasets.dataset import SPLITS
from training.errors import ResourceError, UsageError
from training.wardrobe.spec import Spec, item_of, sample_spec, split_of


@dataclass(frozen=True)
class Planned:
    """One picture to be.

    Args:
        index: of the picture in the wardrobe.
        item: number of the garment it shows.
        view: which of the item's pictures it is, from 0.
        split: `train`, `valid` or `test`.
        spec: what it shows.
    """

    index: int
    item: int
    view: int
    split: str
    spec: Spec

    @property
    def labels(self) -> dict[str, str]:
        """Attribute -> value name, empty where unknown, in the order of `ATTRIBUTES`."""
        return self.spec.garment.labels()


@dataclass(frozen=True)
class Written:
    """What a writer left on disk.

    Args:
        folder: where.
        layout: `catalogue`, `darn` or `deepfashion`.
        images: number of pictures.
        items: number of garments that they show.
        splits: pictures of each split.
    """

    folder: Path
    layout: str
    images: int
    items: int
    splits: dict[str, int]


def plan(count: int, seed: int) -> list[Planned]:
    """The first `count` pictures of wardrobe `seed`.

    Raises:
        UsageError: if `count` is under 1 or `seed` negative.
    """
    if count < 1:
        raise UsageError(f"count is {count}; ask for at least one picture")
    if seed < 0:
        raise UsageError(f"seed is {seed}; use 0 or more")
    planned = []
    for index in range(count):
        item, view = item_of(index)
        spec = sample_spec(seed, index)
        planned.append(Planned(index, item, view, split_of(seed, item), spec))
    return planned


def written(folder: Path, layout: str, planned: list[Planned]) -> Written:
    """Sum up a plan that has been carried out."""
    splits = Counter(p.split for p in planned)
    items = len({p.item for p in planned})
    return Written(folder, layout, len(planned), items, {s: splits[s] for s in SPLITS})


def write_lines(file: Path, lines: list[str]) -> None:
    """Write a text file, UTF-8, one line an entry.

    Raises:
        ResourceError: if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}")  # under its own name a file is whole
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        partial.replace(file)
    except OSError as error:
        raise ResourceError(
            f"cannot write {file}: {error.strerror}; free or choose another"
        ) from error
