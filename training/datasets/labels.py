"""What adapters share: label states, categories, own splits, lines of files, folders and hints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS, Dataset, RetrievalList
from training.errors import DataError
from training.files import relative_path
from training.schema import Schema, normalise_name

CATEGORY_NAMES = ("category", "clothes-category")
"""Normalised names of the attribute that is the category of a garment."""


def states_of(schema: Schema, statements: Sequence[RetrievalList], count: int) -> NDArray[np.int8]:
    """Label states [count, K] int8 of statements that a row has a value, or, by a value of -1,
    that an attribute does not apply to it.

    +1 for stated values, -1 for the other values of an attribute about which something is stated
    of the row, 0 for attributes about which nothing is.
    """
    states = np.zeros((count, schema.size), dtype=np.int8)
    for stated in statements:
        for attribute in range(len(schema.attributes)):
            states[stated.rows[stated.attributes == attribute], schema.slice_of(attribute)] = -1
    # Only now: a row may have several values of one attribute.
    for stated in statements:
        has = stated.values >= 0
        flat = np.asarray(schema.offsets)[stated.attributes] + stated.values
        states[stated.rows[has], flat[has]] = 1
    return states


def with_multi(schema: Schema, states: NDArray[np.int8]) -> Schema:
    """The schema, `multi` wherever a row of the states [N, K] has several values."""
    attributes = []
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        blocks = (states[row : row + 4096, own] == 1 for row in range(0, len(states), 4096))
        several = any((block.sum(axis=1) > 1).any() for block in blocks)
        attributes.append(replace(attribute, multi=attribute.multi or bool(several)))
    return Schema(tuple(attributes))


def dataset_of(
    name: str,
    root: Path,
    schema: Schema,
    paths: Sequence[str],
    statements: Sequence[RetrievalList],
    splits: NDArray[np.str_],
) -> Dataset:
    """The dataset of statements; its category is the attribute so called.

    -1 for a row without a category, or with several, which is noted. A schema without a category
    attribute, or with one of which no row has a single value, gives -1 everywhere and no names.
    """
    labels = states_of(schema, statements, len(paths))
    schema = with_multi(schema, labels)
    if lacking := {n for one in statements for n in one.attributes[one.values < 0].tolist()}:
        own = enumerate(schema.attributes)
        schema = Schema(tuple(replace(a, optional=a.optional or n in lacking) for n, a in own))
    category = np.full(len(paths), -1, dtype=np.int64)
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded = [normalise_name(a.name) for a in schema.attributes]
    for number in (folded.index(n) for n in CATEGORY_NAMES if n in folded):
        attribute, states = schema.attributes[number], labels[:, schema.slice_of(number)] == 1
        counts = states.sum(axis=1)
        several = np.flatnonzero(counts > 1)
        if len(several):
            notes = (
                f"{attribute.name!r}: images of several values, whose category counts as unknown: "
                f"{len(several):,}, first {paths[several[0]]!r}",
            )
        if np.any(counts == 1):
            category[counts == 1], names = states.argmax(axis=1)[counts == 1], attribute.values
            break
    return Dataset(name, root, schema, paths, labels, category, names, splits, notes=notes)


def grouped_split(groups: NDArray[np.int64], seed: int = 0) -> NDArray[np.str_]:
    """Cut rows 8:1:1 into `train`, `valid` and `test` [N], all rows of a group into the same.

    Groups, any integers [N], are dealt out from the largest to the smallest, those of one size in
    an order drawn from `seed`, each to the split that stays the least filled; so big items spread
    like small ones. With fewer than ten groups valid and test can stay empty.
    """
    unique, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    quota = [share * len(groups) for share in (0.8, 0.1, 0.1)]
    filled = [0, 0, 0]
    split_of_group = np.empty(len(unique), dtype=np.int64)
    for group in np.lexsort((shuffled, -sizes)):
        size = int(sizes[group])
        chosen = min(range(3), key=lambda s: (filled[s] + size) / quota[s])
        filled[chosen] += size
        split_of_group[group] = chosen
    return np.array(SPLITS)[split_of_group[inverse.reshape(-1)]]


def numbered(names: Sequence[str]) -> NDArray[np.int64]:
    """Number of each name in order of first appearance; each empty name is one of its own."""
    numbers: dict[str | int, int] = {}
    keys = ((name or row) for row, name in enumerate(names))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


class Line(NamedTuple):
    """A line of `file`; its 1-based number, its text without the line end."""

    file: Path
    number: int
    text: str

    def error(self, expected: str) -> DataError:
        """The error for a malformed line: what should stand there, and what does."""
        shown = self.text.strip()
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return DataError(f"{self.file}, line {self.number}: expected {expected}, found {shown!r}")

    def path(self, text: str) -> str:
        """`text` as a path inside the dataset's folder; DataError if it leaves it."""
        return relative_path(text, f"{self.file}, line {self.number}")

    def coordinates(self, fields: Sequence[str]) -> list[float]:
        """The fields as coordinates in pixels; DataError if one is no finite number."""
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            raise self.error("numbers after the path") from None
        if not all(abs(number) < 1e9 for number in numbers):
            raise self.error("coordinates in pixels")
        return numbers


def whole_number(text: str) -> int | None:
    """A number of at most twelve decimal digits, or None if `text` is anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def lines_of(path: Path) -> Iterator[Line]:
    """Each line that is not blank; DataError if the file is absent, unreadable or not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield Line(path, number, text.rstrip("\r\n"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


_ASEN = (
    "meta.json (here or in the parent folder), filenames_{train,valid,test}.txt, label_train.txt, "
    "query_{valid,test}.txt and candidate_{valid,test}.txt"
)
SOURCES = {
    "catalogue": (
        "labels.csv (columns: image, optional split and item, then one per attribute), or a table "
        "in .tsv, .jsonl or .parquet",
        "A catalogue is your own folder of images with a table, or with a folder a category.",
    ),
    "darn": (
        f"{_ASEN}; pic/<dir>/<a>_<b>_<c>.jpg",
        "The label files circulate with the ASEN and ASEN++ projects (Ma et al., AAAI 2020); the "
        "images come from the authors of DARN (Huang et al., ICCV 2015).",
    ),
    "deepfashion": (
        "Anno_coarse/ or Anno/: list_attr_cloth.txt, list_attr_img.txt, list_category_cloth.txt, "
        "list_category_img.txt (list_bbox.txt, list_landmarks.txt); Eval/list_eval_partition.txt; "
        "Img/img/ or img/; or, without Anno, the ASEN files filenames_*, label_*, query_*, "
        "candidate_*.txt; or Anno_fine/ alone: list_attr_cloth.txt, list_category_cloth.txt and "
        "{train,val,test}.txt with _attr.txt and _cate.txt",
        "DeepFashion, Category and Attribute Prediction Benchmark, from the project page of the "
        "Multimedia Laboratory, CUHK (Liu et al., CVPR 2016); its ASEN files from ASEN's project.",
    ),
    "fashionai": (
        f"the ASEN files: {_ASEN}; or the raw form: Annotations/label.csv and Images/ (also one "
        "folder deeper)",
        "FashionAI attributes, from the FashionAI Global Challenge 2018 of Alibaba Tianchi; its "
        "ASEN files from ASEN's project (Ma et al., AAAI 2020).",
    ),
}
"""Adapter name -> the files that it expects, and where the dataset is to be had."""


def expected(name: str) -> str:
    """The part of a message that says which files adapter `name` expects and where to get them."""
    return "expected files: {}. {}".format(*SOURCES.get(name, ("see its adapter", "")))


def find_root(name: str, root: Path | None = None) -> Path:
    """The folder of dataset `name`: `root`, else `$RETRIEVE_DATA/<name>`, else `data/<name>`.

    The name of a folder is matched whatever its case (`DARN` serves `darn`). DataError, which says
    where the dataset is to be had, if there is no such folder.
    """
    if root is not None:
        if root.is_dir():
            return root
        raise DataError(f"{root} is not a folder; {expected(name)}")
    bases = [Path(os.environ["RETRIEVE_DATA"])] if os.environ.get("RETRIEVE_DATA") else []
    bases.append(Path("data"))
    for base in bases:
        folders = sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
        matching = [p for p in folders if p.name.casefold() == name.casefold()]
        exact = [p for p in matching if p.name == name]
        if matching:
            return (exact or matching)[0]
    tried = " and ".join(str(base / name) for base in bases)
    raise DataError(
        f"dataset {name!r} is not here: looked for {tried}. Say where it is with --root FOLDER or "
        f"$RETRIEVE_DATA (a folder that holds {name}/); {expected(name)}"
    )
