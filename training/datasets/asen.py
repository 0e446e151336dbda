"""DARN and FashionAI, and the file family in which ASEN circulates them and DeepFashion.

`filenames_<split>.txt` lists the images of a split, one path a line; every other file counts
them from 0. `query_<split>.txt` and `candidate_<split>.txt` hold `index attribute value` and are
the published retrieval lists; `label_<split>.txt` holds `index attribute value [attribute value
...]`; `meta.json` names the attributes. A folder may hold only some of the splits.

Ma et al., Fine-Grained Fashion Similarity Learning by Attribute-Specific Embedding Network,
AAAI 2020.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import SPLITS, Dataset, RetrievalList, RetrievalProtocol
from training.datasets.labels import Line, dataset_of, expected, grouped_split, lines_of, numbered
from training.errors import DataError
from training.schema import Attribute, Schema, normalise_name

# Also of a file that is no JSON, of one nested a thousand deep, and of Infinity for a number.
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError)


def has_asen_files(root: Path) -> bool:
    """Whether the folder lists the images of any split in ASEN's form."""
    return any((root / f"filenames_{split}.txt").is_file() for split in SPLITS)


class AsenFiles:
    """The files of one folder; rows in the order train, valid, test.

    `sizes`, where a method asks for it, is the number of values by attribute as the files number
    them. Whatever is malformed or beyond these sizes raises a DataError that names the line.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[str] = []
        self.rows: dict[str, range] = {}
        notes: list[str] = []
        for split in SPLITS:
            file, label = root / f"filenames_{split}.txt", root / f"label_{split}.txt"
            if file.is_file():
                start = len(self.paths)
                self.paths += [line.path(line.text.strip()) for line in lines_of(file)]
                self.rows[split] = range(start, len(self.paths))
                continue
            orphan = f"; {label.name} is there but cannot be used without it"
            orphan = orphan if label.is_file() else ""
            notes.append(f"no {file.name}: split {split!r} is left out{orphan}")
        self.notes = tuple(notes)
        """Remarks on splits whose image list is not in the folder."""

    @property
    def splits(self) -> NDArray[np.str_]:
        """Split of each row, [N] unicode."""
        sizes = [len(rows) for rows in self.rows.values()]
        return np.repeat(np.array(list(self.rows), dtype="<U5"), sizes)

    def labels(self, sizes: Mapping[int, int]) -> list[RetrievalList]:
        """What `label_<split>.txt` states, of the splits that have one."""
        files = [(split, self.root / f"label_{split}.txt") for split in self.rows]
        return [self._read(f, split, sizes, several=True) for split, f in files if f.is_file()]

    def protocols(self, sizes: Mapping[int, int]) -> dict[str, RetrievalProtocol]:
        """The published lists of the splits that have them; DataError if one of two is absent."""
        protocols: dict[str, RetrievalProtocol] = {}
        for split in self.rows:
            files = [self.root / f"{kind}_{split}.txt" for kind in ("query", "candidate")]
            missing = [file for file in files if not file.is_file()]
            if len(missing) == 1:
                raise DataError(f"{missing[0]} is missing; queries and candidates come in pairs")
            if not missing:
                protocols[split] = RetrievalProtocol(*(self._read(f, split, sizes) for f in files))
        return protocols

    def _read(
        self, file: Path, split: str, sizes: Mapping[int, int], several: bool = False
    ) -> RetrievalList:
        form = "'index attribute value" + (" [attribute value ...]'" if several else "'")
        rows = self.rows[split]
        found: list[tuple[int, int, int]] = []
        for line in lines_of(file):
            try:
                index, *rest = map(int, line.text.split())
            except ValueError:
                raise line.error(form + " in whole numbers") from None
            if len(rest) % 2 or (len(rest) != 2 and not several):
                raise line.error(form)
            if not 0 <= index < len(rows):
                raise line.error(f"an index below {len(rows)}, the images of {split!r}")
            for attribute, value in zip(rest[::2], rest[1::2], strict=True):
                if attribute not in sizes:
                    raise line.error(f"an attribute from {min(sizes)} to {max(sizes)}")
                if not 0 <= value < (size := sizes[attribute]):
                    raise line.error(f"attribute {attribute} to have a value below {size}")
                found.append((rows[index], attribute, value))
        table = np.array(found, dtype=np.int64).reshape(-1, 3)
        return RetrievalList(*np.ascontiguousarray(table.T))

    def dataset(
        self,
        name: str,
        schema: Schema,
        labels: Sequence[RetrievalList],
        protocols: dict[str, RetrievalProtocol],
    ) -> Dataset:
        """All that the labels and the published lists state: +1 a value, -1 its siblings."""
        listed = [lists for p in protocols.values() for lists in (p.queries, p.candidates)]
        if not labels and not listed:
            raise DataError(f"{self.root} has images but no label files; {expected(name)}")
        stated = [*labels, *listed]
        made = dataset_of(name, self.root, schema, self.paths, stated, self.splits)
        return replace(made, protocols=protocols, notes=(*self.notes, *made.notes))


def load_asen(root: Path, name: str, key: str) -> Dataset:
    """Adapter `name`, `key` in `meta.json`, from ASEN's files; DataError if they are malformed."""
    if not has_asen_files(root):
        raise DataError(f"{root} lists no images (filenames_*.txt); {expected(name)}")
    meta = read_meta(root, key)
    if meta is None:
        raise DataError(f"meta.json is missing in {root} and in its parent; {expected(name)}")
    files, sizes = AsenFiles(root), dict(enumerate(meta.values()))
    return files.dataset(name, read_schema(root, meta), files.labels(sizes), files.protocols(sizes))


def read_meta(root: Path, key: str) -> dict[str, int] | None:
    """Attribute names -> numbers of values, in order, from `meta.json`; None if there is none.

    Looked for in the folder, then in its parent; either `{key: {"ATTRIBUTES": [...],
    "ATTRIBUTES_NUM": {...}}}` or the inner object alone. DataError if it is not of that form.
    """
    for file in (root / "meta.json", root.resolve().parent / "meta.json"):
        if not file.is_file():
            continue
        try:
            data = _read_json(file)
            if "ATTRIBUTES" not in data:
                data = {normalise_name(k): v for k, v in data.items()}[normalise_name(key)]
            return {str(a): int(data["ATTRIBUTES_NUM"][a]) for a in data["ATTRIBUTES"]}
        except _MALFORMED as error:
            form = f'{{"{key}": {{"ATTRIBUTES": [names], "ATTRIBUTES_NUM": {{name: count}}}}}}'
            raise DataError(f"{file} does not have the form {form}: {error!r}") from error
    return None


def read_schema(root: Path, meta: Mapping[str, int]) -> Schema:
    """Attributes of `meta` with value names from `names.json` ({attribute: [names]}) if there: of
    all values of an attribute or of none, which are then called by their number."""
    file = root / "names.json"
    given: dict[str, tuple[str, ...]] = {}
    if file.is_file():
        try:
            listed = _read_json(file)
            given = {normalise_name(a): tuple(str(v) for v in vs) for a, vs in listed.items()}
        except _MALFORMED as error:
            raise DataError(f"{file} is not of the form {{attribute: [names]}}: {error}") from error
    attributes = []
    for name, count in meta.items():
        values = given.pop(normalise_name(name), tuple(str(v) for v in range(count)))
        if len(values) != count:
            raise DataError(f"{file}: {name!r} has {count} values, {len(values)} names are given")
        attributes.append(Attribute(name, values))
    if given:
        raise DataError(
            f"{file} names {', '.join(sorted(given))}; the attributes are {', '.join(meta)}"
        )
    return Schema(tuple(attributes))


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8-sig"))


def load_darn(root: Path, item_grouped: bool = False) -> Dataset:
    """Read DARN's label files; DataError if they are missing or malformed.

    `item_grouped` cuts 8:1:1, so that no item straddles, without the published query and candidate
    lists, which belong to the published splits.
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


ATTRIBUTES = (
    *("skirt_length", "sleeve_length", "coat_length", "pant_length"),
    *("collar_design", "lapel_design", "neckline_design", "neck_design"),
)
"""The eight attributes in the order of ASEN's files, so that both forms give one schema."""

STATES = {"y": 1, "n": -1, "m": 0}


def load_fashionai(root: Path) -> Dataset:
    """Read ASEN's files where the folder has them, else the raw form, cut 8:1:1 by path.

    DataError if files are missing or malformed.
    """
    if has_asen_files(root):
        return load_asen(root, "fashionai", "FashionAI")
    files = label_files(root)
    if not files:
        raise DataError(f"{root} holds no label file of FashionAI; {expected('fashionai')}")
    rows = [_parse(line, root) for file in files for line in lines_of(file)]
    counts: dict[str, int] = {}
    for _, attribute, letters, line in rows:
        # A test file without answers has one `?` or nothing: it says no number of values.
        if letters and counts.setdefault(attribute, len(letters)) != len(letters):
            raise line.error(f"{counts[attribute]} letters as above")
    order = [a for a in ATTRIBUTES if a in counts] + sorted(counts.keys() - set(ATTRIBUTES))
    schema = read_schema(root, {a: counts[a] for a in order})
    labels = np.zeros((len(rows), schema.size), dtype=np.int8)
    for number, (_, attribute, letters, _) in enumerate(rows):
        if letters:
            where = schema.slice_of(order.index(attribute))
            labels[number, where] = [STATES[letter] for letter in letters]
    paths = [path for path, *_ in rows]
    return Dataset(
        name="fashionai",
        root=root,
        schema=schema,
        paths=paths,
        labels=labels,
        category=np.full(len(rows), -1, dtype=np.int64),
        category_names=(),
        splits=grouped_split(numbered(paths)),
        notes=("raw form without splits: cut 8:1:1 by image path",),
    )


def label_files(root: Path) -> list[Path]:
    """Label files of the raw form, in the folder and one deeper."""
    own = [f for f in (root / "Annotations" / "label.csv", root / "label.csv") if f.is_file()]
    return [*own, *sorted(root.glob("*/Annotations/label.csv"))]


def _parse(line: Line, root: Path) -> tuple[str, str, str, Line]:
    """Path relative to the root, attribute, letters (none where they are not told) of a line."""
    malformed = line.error("'path,attribute_labels,letters n, m and one y'")
    try:
        cells = [cell.strip() for cell in next(csv.reader([line.text]))]
    except csv.Error:
        raise malformed from None
    if len(cells) != 3 or not cells[1]:
        raise malformed
    path, attribute, letters = cells
    letters = "" if letters == "?" else letters
    if set(letters) - STATES.keys() or letters.count("y") > 1:
        raise malformed
    folder = line.file.parent.parent if line.file.parent.name == "Annotations" else line.file.parent
    path = (folder.relative_to(root) / line.path(path)).as_posix()
    return path, attribute.removesuffix("_labels"), letters, line
