"""DeepFashion, Category and Attribute Prediction: 289,222 images, 1000 values, five attributes.

Three forms: the release with its lists (`Anno_coarse/` or `Anno/`), `Anno_fine/` alone
(`deepfashion_fine`), and ASEN's files, whose query and candidate lists are read beside the release
or stand alone. There the attribute of a query is type - 1 and its value the rank of the value's
global id (line of `list_attr_cloth.txt`, from 0) among the ids of its type, while
`label_<split>.txt` holds `index type id [type id ...]`. Checked on the published lists: each of
their 55,250 statements follows from the label files in this way.

Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations,
CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.datasets.asen import AsenFiles, has_asen_files, read_meta
from training.datasets.dataset import Dataset, RetrievalList
from training.datasets.labels import Line, expected, lines_of, whole_number, with_multi
from training.errors import DataError
from training.schema import Attribute, Schema, normalise_name

PARTITIONS = {"train": "train", "val": "valid", "test": "test"}
"""DeepFashion's names of the splits and ours."""

SLOTS_OF_TYPE = {1: (0, 1, 2, 3, 6, 7), 2: (4, 5, 6, 7), 3: (0, 1, 2, 3, 4, 5, 6, 7)}
"""Clothes type (1 upper, 2 lower, 3 full) -> slots of its landmarks in the order of the file.

Slots mean the same for every garment: 0 left collar, 1 right collar, 2 left sleeve, 3 right sleeve,
4 left waistline, 5 right waistline, 6 left hem, 7 right hem."""

_STATES = {"1", "0", "-1"}


class Names(NamedTuple):
    """Names in file order, which may contain spaces, and the 1-based type of each, int64."""

    names: tuple[str, ...]
    types: NDArray[np.int64]


class Entry(NamedTuple):
    """What a list says of the image of one row."""

    row: int
    line: Line
    fields: list[str]


def read_names(file: Path, types: int) -> Names:
    """A `list_*_cloth.txt`: names with their type, an integer in 1..`types` ending the line."""
    names: list[str] = []
    numbers: list[int] = []
    for line in body(file):
        *words, last = line.text.split()
        number = whole_number(last)
        if not words or number is None or not 1 <= number <= types:
            raise line.error(f"a name and a type from 1 to {types}")
        names.append(" ".join(words))
        numbers.append(number)
    return Names(tuple(names), np.array(numbers, dtype=np.int64))


def schema_of(names: Names, types: Sequence[str], multi: bool) -> Schema:
    """One attribute for each type that occurs, its values in file order.

    Names that differ in case, blanks and dashes only (`v neck`, `v-neck`) would be one name; the
    later ones get a number: `v neck (2)`.
    """
    attributes: list[Attribute] = []
    for number, attribute in enumerate(types, start=1):
        values: list[str] = []
        seen: dict[str, int] = {}
        for at in np.flatnonzero(names.types == number):
            name = names.names[at]
            times = seen[normalise_name(name)] = seen.get(normalise_name(name), 0) + 1
            values.append(name if times == 1 else f"{name} ({times})")
        if values:
            attributes.append(Attribute(attribute, tuple(values), multi))
    return Schema(tuple(attributes))


def body(file: Path) -> Iterator[Line]:
    """Lines after the count and the header, checked against the count at the end."""
    lines = lines_of(file)
    first = next(lines, Line(file, 1, ""))
    promised = whole_number(first.text)
    if promised is None:
        raise first.error("the number of entries on the first line")
    next(lines, None)
    seen = 0
    for line in lines:
        seen += 1
        yield line
    if seen != promised:
        raise DataError(f"{file}: line 1 promises {promised} entries, there are {seen}")


def by_path(file: Path, row_of: Mapping[str, int]) -> Iterator[Entry]:
    """Entries of a list of the release."""
    for line in body(file):
        path, *fields = line.text.split()
        row = row_of.get(path)
        if row is None:
            raise line.error("a path that list_attr_img.txt has")
        yield Entry(row, line, fields)


def new_paths(file: Path, row_of: dict[str, int]) -> Iterator[Entry]:
    """Entries of the list that says which images there are; `row_of` takes up their paths."""
    for row, line in enumerate(body(file)):
        path, *fields = line.text.split()
        if row_of.setdefault(line.path(path), row) != row:
            raise DataError(f"{file} lists an image twice; remove one of them: {path!r}")
        yield Entry(row, line, fields)


def in_order(file: Path, rows: range) -> Iterator[Entry]:
    """Entries of a file of `Anno_fine/`, a line for each of `rows`."""
    lines = list(lines_of(file))
    if len(lines) != len(rows):
        raise DataError(f"{file} has {len(lines)} lines, the list of its images has {len(rows)}")
    for row, line in zip(rows, lines, strict=True):
        yield Entry(row, line, line.text.split())


def read_states(entries: Iterable[Entry], names: Names) -> NDArray[np.int8]:
    """Label states [N, K] (`1` yes, `-1` no, `0` unknown), in the order of `schema_of`.

    A release has 289,222 x 1000 of them: memory holds the result and little else.
    """
    columns = np.argsort(names.types, kind="stable")
    found = bytearray()
    for _, line, fields in entries:
        if len(fields) != len(columns) or not set(fields) <= _STATES:
            raise line.error(f"{len(columns)} states 1, 0 or -1 after a path")
        codes = "".join(fields).replace("-1", "/").encode()  # "/" comes before "0" and "1"
        found += (np.frombuffer(codes, np.int8)[columns] - ord("0")).tobytes()
    return np.frombuffer(found, np.int8).reshape(-1, len(columns))


def read_category(entries: Iterable[Entry], rows: int, categories: int) -> NDArray[np.int64]:
    """Category of each row [N] int64 from 0 (the file counts from 1), -1 where it has none."""
    out = np.full(rows, -1, dtype=np.int64)
    for row, line, fields in entries:
        number = whole_number(" ".join(fields))
        if number is None or not 1 <= number <= categories:
            raise line.error(f"a category from 1 to {categories}")
        out[row] = number - 1
    return out


def read_coordinates(entries: Iterable[Entry], rows: int, columns: int) -> NDArray[np.float32]:
    """Numbers of each row [N, columns] float32, in pixels; NaN where the list has none."""
    out = np.full((rows, columns), np.nan, dtype=np.float32)
    for row, line, fields in entries:
        if len(fields) != columns:
            raise line.error(f"{columns} numbers")
        out[row] = line.coordinates(fields)
    return out


def read_landmarks(file: Path, row_of: Mapping[str, int]) -> NDArray[np.float32]:
    """Of `list_landmarks.txt` (path, clothes type, then `visibility x y` for each landmark)
    [N, 8, 3] float32: visibility (0 visible, 1 occluded, 2 cut off), x and y in pixels; NaN in the
    slots that a garment does not have."""
    out = np.full((len(row_of), 8, 3), np.nan, dtype=np.float32)
    for row, line, fields in by_path(file, row_of):
        slots = SLOTS_OF_TYPE.get(whole_number("".join(fields[:1])) or 0)
        if slots is None or len(fields) != 1 + 3 * len(slots):
            raise line.error("a clothes type 1, 2 or 3 with 6, 4 or 8 'visibility x y'")
        out[row, slots] = np.reshape(line.coordinates(fields[1:]), (-1, 3))
    return out


FINE_TYPES = ("texture", "sleeve", "length", "neckline", "fabric", "fit")


def load_fine(folder: Path, images: Path) -> Dataset:
    """Read `Anno_fine/`; image paths are relative to `images`.

    In an attribute of which an image has a value its other values count as absent; one of which
    it has none is unknown. A split without boxes or landmarks has NaN. DataError if files are
    missing, malformed or differ in length from the images of their split.
    """
    paths: list[str] = []
    rows: dict[str, range] = {}
    for split in (s for s in PARTITIONS if (folder / f"{s}.txt").is_file()):
        start = len(paths)
        paths += [line.path(line.text.strip()) for line in lines_of(folder / f"{split}.txt")]
        rows[split] = range(start, len(paths))
    if not rows:
        raise DataError(
            f"{folder} has no train.txt, val.txt or test.txt; expected those and for each "
            "<split>_attr.txt, <split>_cate.txt (and <split>_bbox.txt, <split>_landmarks.txt), "
            "list_attr_cloth.txt and list_category_cloth.txt"
        )

    def entries(kind: str, required: bool = True) -> Iterator[Entry]:
        for split, own in rows.items():
            file = folder / f"{split}_{kind}.txt"
            if required or file.is_file():
                yield from in_order(file, own)

    def coordinates(kind: str, count: int) -> NDArray[np.float32] | None:
        if not any((folder / f"{split}_{kind}.txt").is_file() for split in rows):
            return None
        return read_coordinates(entries(kind, required=False), len(paths), count)

    names = read_names(folder / "list_attr_cloth.txt", len(FINE_TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    schema = schema_of(names, FINE_TYPES, multi=False)
    labels = read_states(entries("attr"), names)
    for number in range(len(schema.attributes)):
        states = labels[:, schema.slice_of(number)]
        known = (states == 1).any(axis=1, keepdims=True)
        states[:] = np.where(known, np.where(states == 1, 1, -1), 0)
    category = read_category(entries("cate"), len(paths), len(categories.names))
    landmarks = coordinates("landmarks", 16)
    return Dataset(
        name="deepfashion",
        root=images,
        schema=with_multi(schema, labels),
        paths=paths,
        labels=labels,
        category=category,
        category_names=categories.names,
        splits=np.repeat([PARTITIONS[s] for s in rows], [len(r) for r in rows.values()]),
        boxes=coordinates("bbox", 4),
        landmarks=None if landmarks is None else _slotted(landmarks, categories.types[category]),
        notes=("Anno_fine: 26 relabelled attributes",),
    )


def _slotted(packed: NDArray[np.float32], kinds: NDArray[np.int64]) -> NDArray[np.float32]:
    """[N, 8, 3] from [N, 16]: the category's type says which landmarks are listed.

    Visibility is not published here: 0 (visible) where there are coordinates, 2 (cut off) at 0, 0.
    """
    out = np.full((len(packed), 8, 3), np.nan, dtype=np.float32)
    for kind, slots in SLOTS_OF_TYPE.items():
        rows = np.flatnonzero(kinds == kind)
        points = packed[rows].reshape(-1, 8, 2)[:, : len(slots)]
        cut_off = np.where((points == 0).all(axis=2, keepdims=True), 2, 0)
        seen = np.where(np.isnan(points[..., :1]), np.nan, cut_off)
        out[rows[:, None], list(slots)] = np.concatenate([seen, points], axis=2)
    return out


TYPES = ("texture", "fabric", "shape", "part", "style")
"""Names of the attribute types 1 to 5."""

_ANY_ID = 10**9


def load(root: Path) -> Dataset:
    """Read the release, or ASEN's files where there is no release, or else `Anno_fine/`.

    Beside the release ASEN's query and candidate lists are taken up. An image of ASEN's valid or
    test files is then in that split, whatever the release says, so that training does not see it.

    Attributes are texture, fabric, shape, part and style, multi-valued, values in file order; the
    category is not among them. Paths are relative to `Img/` or, where that has no `img/`, to
    `root`. DataError if files are missing or malformed.
    """
    images = root / "Img" if (root / "Img" / "img").is_dir() else root
    folders = [root / "Anno_coarse", root / "Anno", root]
    folder = next((f for f in folders if (f / "list_attr_cloth.txt").is_file()), None)
    if folder is not None:
        dataset = _load_release(root, folder, images)
        return _with_asen_lists(dataset, root) if has_asen_files(root) else dataset
    if has_asen_files(root):
        return replace(_load_asen_alone(root), root=images)
    if (root / "Anno_fine" / "list_attr_cloth.txt").is_file():
        return load_fine(root / "Anno_fine", images)
    raise DataError(f"{root} holds no label files of DeepFashion; {expected('deepfashion')}")


def _load_release(root: Path, folder: Path, images: Path) -> Dataset:
    required = [
        *(folder / f"list_{kind}.txt" for kind in ("attr_img", "category_cloth", "category_img")),
        root / "Eval" / "list_eval_partition.txt",
    ]
    missing = [str(f) for f in required if not f.is_file()]
    if missing:
        raise DataError(f"missing: {', '.join(missing)}; {expected('deepfashion')}")
    values = read_names(folder / "list_attr_cloth.txt", len(TYPES))
    categories = read_names(folder / "list_category_cloth.txt", 3)
    row_of: dict[str, int] = {}
    labels = read_states(new_paths(folder / "list_attr_img.txt", row_of), values)
    n = len(row_of)
    splits = np.full(n, "", dtype="<U5")
    for row, line, fields in by_path(required[-1], row_of):
        name = " ".join(fields)
        if name not in PARTITIONS:
            raise line.error("train, val or test")
        splits[row] = PARTITIONS[name]
    in_category = by_path(folder / "list_category_img.txt", row_of)
    category = read_category(in_category, n, len(categories.names))
    boxes, landmarks = folder / "list_bbox.txt", folder / "list_landmarks.txt"
    notes = [f"no {f.name}" for f in (boxes, landmarks) if not f.is_file()]
    for what, count in (("category", (category < 0).sum()), ("split", (splits == "").sum())):
        if count:
            notes.append(f"{count} images without {what}")
    boxed = boxes.is_file()
    return Dataset(
        name="deepfashion",
        root=images,
        schema=schema_of(values, TYPES, multi=True),
        paths=list(row_of),
        labels=labels,
        category=category,
        category_names=categories.names,
        splits=splits,
        boxes=read_coordinates(by_path(boxes, row_of), n, 4) if boxed else None,
        landmarks=read_landmarks(landmarks, row_of) if landmarks.is_file() else None,
        notes=tuple(notes),
    )


def _with_asen_lists(dataset: Dataset, root: Path) -> Dataset:
    """The release with ASEN's lists and splits."""
    files = AsenFiles(root)
    row_of = {path: row for row, path in enumerate(dataset.paths)}
    unknown = [path for path in files.paths if path not in row_of]
    if unknown:
        raise DataError(
            f"ASEN's filenames in {root} name {len(unknown)} images that list_attr_img.txt does "
            f"not have, the first {unknown[0]!r}; remove the files of one of the two"
        )
    sizes = [len(attribute.values) for attribute in dataset.schema.attributes]
    if len(sizes) != len(TYPES):
        raise DataError(f"ASEN's lists in {root} number all five types, {len(sizes)} are here")
    rows = np.array([row_of[path] for path in files.paths], dtype=np.int64)
    splits = dataset.splits.copy()
    splits[rows] = files.splits
    note = f"{len(np.unique(rows))} images take their split from ASEN's files"
    protocols = files.protocols(dict(enumerate(sizes)))
    return replace(
        dataset,
        splits=splits,
        protocols={split: p.renumbered(rows=rows) for split, p in protocols.items()},
        notes=(*dataset.notes, note),
    )


def _load_asen_alone(root: Path) -> Dataset:
    """ASEN's files without the release: values are called by their number."""
    files = AsenFiles(root)
    labels = files.labels(dict.fromkeys(range(1, len(TYPES) + 1), _ANY_ID))
    if not labels:
        raise DataError(f"{root} has images but no label_*.txt; {expected('deepfashion')}")
    types, ids = (np.concatenate([getattr(t, n) for t in labels]) for n in ("attributes", "values"))
    known = [np.unique(ids[types == number]) for number in range(1, len(TYPES) + 1)]
    sizes = [len(own) for own in known]
    meta = read_meta(root, "DeepFashion")
    if meta is not None and list(meta.values()) != sizes:
        raise DataError(
            f"the label files of {root} name {sizes} values of the five types, meta.json says "
            f"{list(meta.values())}; the ids cannot be ranked without Anno/list_attr_cloth.txt"
        )
    if 0 in sizes:
        text = f"ASEN's lists in {root} number all five types, but {sizes} values are here"
        raise DataError(text)
    named = zip(TYPES, (tuple(map(str, range(size))) for size in sizes), strict=True)
    schema = Schema(tuple(Attribute(*own, multi=True) for own in named))
    values = np.empty_like(ids)
    for number, own in enumerate(known, start=1):
        values[types == number] = np.searchsorted(own, ids[types == number])
    ranked = RetrievalList(np.concatenate([t.rows for t in labels]), types - 1, values)
    protocols = files.protocols(dict(enumerate(sizes)))
    dataset = files.dataset("deepfashion", schema, [ranked], protocols)
    note = "ASEN's files alone, no Anno: no categories, no names"
    return replace(dataset, notes=(note, *dataset.notes))
