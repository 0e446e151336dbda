"""The file family in which ASEN circulates DARN, FashionAI and DeepFashion.

`filenames_<split>.txt` lists the images of a split, one path a line; every other file counts
them from 0. `query_<split>.txt` and `candidate_<split>.txt` hold `index attribute value` and are
the published retrieval lists; `label_<split>.txt` holds `index attribute value [attribute value
...]`; `meta.json` names the attributes. A folder may hold only some of the splits.

Ma et al., Fine-Grained Fashion Similarity Learning by Attribute-Specific Embedding Network,
AAAI 2020.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS, RetrievalList, RetrievalProtocol
from training.datasets.label_lines import bad_line, lines_of
from training.errors import DataError
from training.relative_path import relative_path
from training.schema import Attribute, Schema, normalise_name

# Also of a file that is no JSON, of one nested a thousand deep, and of Infinity for a number.
_MALFORMED = (TypeError, ValueError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class AsenRows:
    """The images of all splits that a folder holds, train first, then valid, then test.

    Args:
        paths: image paths relative to the folder, N of them.
        splits: split of each row, [N] unicode.
        starts: first row of each split that is there.
    """

    paths: list[str]
    splits: NDArray[np.str_]
    starts: dict[str, int]

    def count(self, split: str) -> int:
        """Number of images of one split."""
        return int(np.count_nonzero(self.splits == split))


@dataclass(frozen=True)
class Triples:
    """`row attribute value` statements of one file, as they stand there.

    Args:
        path: the file.
        lines: 1-based line of each statement, [M] int64.
        rows: row of the dataset, [M] int64.
        attributes: attribute as written, [M] int64.
        values: value as written, [M] int64.
    """

    path: Path
    lines: NDArray[np.int64]
    rows: NDArray[np.int64]
    attributes: NDArray[np.int64]
    values: NDArray[np.int64]

    def check(self, counts: Sequence[int]) -> None:
        """Raise DataError at the first attribute or value beyond `counts` (values by attribute)."""
        sizes = np.asarray(counts, dtype=np.int64)
        known = (self.attributes >= 0) & (self.attributes < len(sizes))
        size = sizes[np.where(known, self.attributes, 0)]
        wrong = np.flatnonzero(~known | (self.values < 0) | (self.values >= size))
        if len(wrong):
            at = int(wrong[0])
            attribute, value = int(self.attributes[at]), int(self.values[at])
            limit = (
                f"attribute {attribute} to have a value below {int(size[at])}"
                if known[at]
                else f"an attribute below {len(sizes)}"
            )
            raise bad_line(
                self.path, int(self.lines[at]), f"attribute {attribute} value {value}", limit
            )


def has_asen_files(root: Path) -> bool:
    """Whether the folder lists the images of any split in ASEN's form."""
    return any((root / f"filenames_{split}.txt").is_file() for split in SPLITS)


def read_rows(root: Path) -> AsenRows:
    """Read `filenames_<split>.txt` of every split that is there.

    Raises:
        DataError: if a path leaves the folder.
    """
    paths: list[str] = []
    splits: list[str] = []
    starts: dict[str, int] = {}
    for split in SPLITS:
        file = root / f"filenames_{split}.txt"
        if not file.is_file():
            continue
        starts[split] = len(paths)
        for number, line in lines_of(file):
            paths.append(relative_path(line.strip(), f"{file}, line {number}"))
        splits += [split] * (len(paths) - starts[split])
    return AsenRows(paths, np.array(splits, dtype="<U5"), starts)


def read_triples(file: Path, rows: AsenRows, split: str, several: bool = False) -> Triples:
    """Read `index attribute value` lines, or with `several` any number of pairs on a line.

    Raises:
        DataError: at a line that is not of that form, or an index beyond the split's images.
    """
    form = "'index attribute value" + (" [attribute value ...]'" if several else "'")
    start, count = rows.starts[split], rows.count(split)
    found: list[tuple[int, int, int, int]] = []
    for number, line in lines_of(file):
        try:
            index, *rest = [int(token) for token in line.split()]
        except ValueError:
            raise bad_line(file, number, line, form + " in whole numbers") from None
        if len(rest) % 2 or (len(rest) != 2 and not several):
            raise bad_line(file, number, line, form)
        if not 0 <= index < count:
            raise bad_line(file, number, line, f"an index below {count}, the images of {split!r}")
        pairs = zip(rest[::2], rest[1::2], strict=True)
        found += [(number, start + index, attribute, value) for attribute, value in pairs]
    try:
        table = np.array(found, dtype=np.int64).reshape(-1, 4)
    except OverflowError:
        raise DataError(f"{file}: a number in it is far too large; expected {form}") from None
    return Triples(file, *(np.ascontiguousarray(table[:, c]) for c in range(4)))


def read_labels(root: Path, rows: AsenRows) -> list[Triples]:
    """Read `label_<split>.txt` of the splits that have one."""
    files = [(split, root / f"label_{split}.txt") for split in rows.starts]
    return [read_triples(f, rows, split, several=True) for split, f in files if f.is_file()]


def read_lists(root: Path, rows: AsenRows) -> dict[str, tuple[Triples, Triples]]:
    """Read the query and candidate lists of the splits that have them.

    Raises:
        DataError: if a split has one of the two only, or a line is malformed.
    """
    lists: dict[str, tuple[Triples, Triples]] = {}
    for split in rows.starts:
        query, candidate = root / f"query_{split}.txt", root / f"candidate_{split}.txt"
        if query.is_file() != candidate.is_file():
            absent = candidate if query.is_file() else query
            raise DataError(f"{absent} is missing; queries and candidates come in pairs")
        if query.is_file():
            lists[split] = (
                read_triples(query, rows, split),
                read_triples(candidate, rows, split),
            )
    return lists


def protocols_of(lists: dict[str, tuple[Triples, Triples]]) -> dict[str, RetrievalProtocol]:
    """Turn checked lists into what `Dataset.protocols` holds."""

    def plain(triples: Triples) -> RetrievalList:
        return RetrievalList(triples.rows, triples.attributes, triples.values)

    return {s: RetrievalProtocol(plain(q), plain(c)) for s, (q, c) in lists.items()}


def read_meta(root: Path, key: str) -> dict[str, int] | None:
    """Attribute names and their numbers of values, in order, from `meta.json`.

    Looked for in the folder, then in its parent; either `{key: {"ATTRIBUTES": [...],
    "ATTRIBUTES_NUM": {...}}}` or the inner object alone.

    Returns:
        Name -> number of values, or None if there is no `meta.json`.

    Raises:
        DataError: if the file is not of that form.
    """
    for file in (root / "meta.json", root.resolve().parent / "meta.json"):
        if not file.is_file():
            continue
        form = f'{{"{key}": {{"ATTRIBUTES": [names], "ATTRIBUTES_NUM": {{name: count}}}}}}'
        try:
            data = json.loads(file.read_text(encoding="utf-8-sig"))
            if "ATTRIBUTES" not in data:
                by_name = {normalise_name(k): v for k, v in data.items()}
                data = by_name[normalise_name(key)]
            return {str(a): int(data["ATTRIBUTES_NUM"][a]) for a in data["ATTRIBUTES"]}
        except (*_MALFORMED, KeyError) as error:
            raise DataError(f"{file} does not have the form {form}: {error!r}") from error
    return None


def read_schema(root: Path, meta: dict[str, int]) -> Schema:
    """Attributes of `meta` with value names from `names.json` ({attribute: [names]}) if there.

    Values without a name are called by their number: `0`, `1`, ...

    Raises:
        DataError: if `names.json` does not name every value of an attribute that it lists.
    """
    names = {a: tuple(str(v) for v in range(count)) for a, count in meta.items()}
    file = root / "names.json"
    if file.is_file():
        try:
            listed = json.loads(file.read_text(encoding="utf-8-sig"))
            given = {normalise_name(a): tuple(str(v) for v in vs) for a, vs in listed.items()}
        except _MALFORMED as error:
            raise DataError(f"{file} is not of the form {{attribute: [names]}}: {error}") from error
        for attribute, count in meta.items():
            values = given.pop(normalise_name(attribute), names[attribute])
            if len(values) != count:
                raise DataError(
                    f"{file}: {attribute!r} has {count} values, {len(values)} names are given"
                )
            names[attribute] = values
        if given:
            raise DataError(
                f"{file} names {', '.join(sorted(given))}; the attributes are {', '.join(meta)}"
            )
    return Schema(tuple(Attribute(a, values) for a, values in names.items()))
