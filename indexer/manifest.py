"""`manifest.json`, the only commit point of an index: what it consists of, and every file's hash.

A reader sees the files that one manifest names, so one whole version. While a build runs, its
finished shards are listed in `building.json`, a manifest of the same form without a gallery file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.atomic import write_file
from training.errors import CorruptStoreError, DataError
from training.schema import Condition

FORMAT = 2
"""2: views name their approximate index and the seconds that they took, files a second, quick
checksum and where their arrays lie. Format 1 is read too."""
MANIFEST_NAME = "manifest.json"
BUILDING_NAME = "building.json"

_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies in a file, so that nobody has to parse the file to read it.

    Args:
        name: of the array.
        dtype: as `numpy.dtype.str` has it.
        shape: of the array.
        offset: its first byte; None if it has no element.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None


@dataclass(frozen=True)
class FileEntry:
    """A file of the index.

    Args:
        name: relative to the index's folder.
        sha256: of its content, hexadecimal.
        size: bytes.
        fast: XXH3 of its content, 128 bits, hexadecimal: no protection from a forger, but checked
            ten times as fast; None if it was not computed.
        arrays: what it holds, if it is a file of arrays; empty if that was not recorded.
    """

    name: str
    sha256: str
    size: int
    fast: str | None = None
    arrays: tuple[ArrayPlace, ...] = ()

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> FileEntry:
        """The inverse of `dataclasses.asdict`; raises KeyError, TypeError or ValueError."""
        arrays = tuple(
            ArrayPlace(**place | {"shape": tuple(map(int, place["shape"]))})
            for place in entry.get("arrays", ())
        )
        return cls(**entry | {"arrays": arrays})


@dataclass(frozen=True)
class Reject:
    """An image that is not in the index, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ShardEntry:
    """A committed shard and the listed images that it was made from.

    Args:
        file: the shard's file; None if none of its images could be read.
        rows: images in it.
        listed: images that were listed for it, rejects included.
        paths: hash of the listed paths.
        listing: hash of the listed paths with size and time of change.
        content: hash of the listed paths with each file's SHA-256.
        rejects: listed images that could not be read.
    """

    file: FileEntry | None
    rows: int
    listed: int
    paths: str
    listing: str
    content: str
    rejects: tuple[Reject, ...]


@dataclass(frozen=True)
class ApproximateEntry:
    """The approximate index of a view.

    Args:
        file: a faiss index with the rows of the view as ids.
        factory: the string that it was made from.
        refine: candidates a hit, compared with the flat vectors.
        nprobe: inverted lists a query reads; 0 without lists.
        recall: measured recall@10 against the flat search, 0..1.
        target: the recall@10 that was asked for.
        seconds: that training, filling and measuring took.
    """

    file: FileEntry
    factory: str
    refine: int
    nprobe: int
    recall: float
    target: float
    seconds: float


@dataclass(frozen=True)
class ViewEntry:
    """A view: the FAISS file of the gallery's embeddings under one condition.

    Args:
        key: short hash of the condition.
        name: the condition in words.
        present: flat indices of the values marked +1.
        absent: flat indices of the values marked -1.
        content: `Manifest.content` of the maps that it was made from.
        file: an index of unit vectors, metric inner product, in row order.
        seconds: that embedding the gallery took, its share of the pass over the maps; None if
            format 1 did not say.
        approximate: what finds candidates in it; None if it is searched whole.
    """

    key: str
    name: str
    present: tuple[int, ...]
    absent: tuple[int, ...]
    content: str
    file: FileEntry
    seconds: float | None = None
    approximate: ApproximateEntry | None = None

    def condition(self, size: int) -> Condition:
        """The condition's label states [K] int8, K = `size`."""
        states = np.zeros(size, dtype=np.int8)
        states[list(self.present)] = 1
        states[list(self.absent)] = -1
        return states


@dataclass(frozen=True)
class Identity:
    """What the stored maps depend on besides the images; two indexes that differ never mix.

    Args:
        model: hash of weights, configuration and schema.
        preprocessing: hash of the preprocessing.
        schema: hash of the schema.
        dim: d.
        grid: (H, W).
        dtype: of the stored maps.
        metric: of the views.
        precision: in which the backbone computed: `float32`, `bfloat16` or `int8`.
    """

    model: str
    preprocessing: str
    schema: str
    dim: int
    grid: tuple[int, int]
    dtype: str = "int8"
    metric: str = "cosine"
    precision: str = "float32"


@dataclass(frozen=True)
class Manifest:
    """One whole version of an index.

    Args:
        identity: model, preprocessing, schema and shape of the maps.
        dataset: name of the dataset.
        root: absolute folder that image paths are relative to.
        schema: `Schema.to_json`.
        preprocessing: `Preprocessing.to_json`.
        shards: in row order.
        gallery: labels, paths and predictions of all rows; None while a build runs.
        model_files: the copied checkpoint.
        views: the views that were built.
        int8_ranges: of the activations, where the backbone computed in int8: later shards are
            encoded with the same; empty otherwise.
    """

    identity: Identity
    dataset: str
    root: str
    schema: dict[str, Any]
    preprocessing: dict[str, Any]
    shards: tuple[ShardEntry, ...] = ()
    gallery: FileEntry | None = None
    model_files: tuple[FileEntry, ...] = ()
    views: tuple[ViewEntry, ...] = ()
    int8_ranges: tuple[tuple[float, float], ...] = ()

    @property
    def rows(self) -> int:
        """M, the images in the index."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rejects(self) -> list[Reject]:
        """Images that were listed and could not be read."""
        return [reject for shard in self.shards for reject in shard.rejects]

    @property
    def content(self) -> str:
        """Hash of the model and all stored maps: what a view depends on."""
        parts = [self.identity.model] + [s.file.sha256 for s in self.shards if s.file]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def files(self) -> list[FileEntry]:
        """Every file of this version, the manifest apart."""
        out = [*self.model_files, *(s.file for s in self.shards if s.file)]
        out += [self.gallery] if self.gallery else []
        return out + self.view_files

    @property
    def view_files(self) -> list[FileEntry]:
        """Those of the views: their vectors, then their approximate indexes."""
        out = [view.file for view in self.views]
        return out + [view.approximate.file for view in self.views if view.approximate]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically, with a hash of itself; raises ResourceError."""
    body = {"format": FORMAT} | asdict(manifest)
    write_file(path, json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode())


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None if there is none.

    Raises:
        CorruptStoreError: if it is damaged.
        DataError: if a newer version of this program wrote it, or it would lie in a file.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise DataError(f"no index in {path.parent}: that is no folder") from error
    except OSError as error:
        raise CorruptStoreError(f"cannot read {path}: {error.strerror}") from error
    try:
        data = json.loads(text)
        checksum = data.pop("checksum")
        number = int(data["format"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if number > FORMAT:
        raise DataError(
            f"{path} has format {number}; this version reads up to {FORMAT}: "
            "install a newer m2fashion-retrieval"
        )
    if checksum != _checksum(data):
        raise _damaged(path, "its checksum does not match")
    try:
        manifest = _from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, repr(error)) from error
    for entry in manifest.files:
        if not all(_SAFE_PART.fullmatch(part) for part in entry.name.split("/")):
            raise _damaged(path, f"it names a file outside of the index: {entry.name!r}")
    return manifest


def _damaged(path: Path, why: str) -> CorruptStoreError:
    return CorruptStoreError(f"{path} is damaged ({why}); run build-index again")


def _checksum(body: dict[str, Any]) -> str:
    # Through JSON and back, so that tuples and lists, written and read, give the same text.
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _from_json(data: dict[str, Any]) -> Manifest:
    def file(entry: dict[str, Any] | None) -> FileEntry | None:
        return None if entry is None else FileEntry.from_json(entry)

    def shard(entry: dict[str, Any]) -> ShardEntry:
        rejects = tuple(Reject(**reject) for reject in entry["rejects"])
        return ShardEntry(**entry | {"file": file(entry["file"]), "rejects": rejects})

    def view(entry: dict[str, Any]) -> ViewEntry:
        present, absent = tuple(entry["present"]), tuple(entry["absent"])
        own = FileEntry.from_json(entry["file"])
        named = {"file": own, "present": present, "absent": absent}
        # Format 1 has neither of the two.
        return ViewEntry(**entry | named | {"approximate": approximate(entry.get("approximate"))})

    def approximate(entry: dict[str, Any] | None) -> ApproximateEntry | None:
        if entry is None:
            return None
        return ApproximateEntry(**entry | {"file": FileEntry.from_json(entry["file"])})

    height, width = data["identity"]["grid"]
    return Manifest(
        identity=Identity(**data["identity"] | {"grid": (int(height), int(width))}),
        dataset=str(data["dataset"]),
        root=str(data["root"]),
        schema=dict(data["schema"]),
        preprocessing=dict(data["preprocessing"]),
        shards=tuple(shard(entry) for entry in data["shards"]),
        gallery=file(data["gallery"]),
        model_files=tuple(FileEntry.from_json(entry) for entry in data["model_files"]),
        views=tuple(view(entry) for entry in data["views"]),
        int8_ranges=tuple((float(low), float(high)) for low, high in data.get("int8_ranges", ())),
    )
