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

from training.descriptor import ROOT, DescriptorLayout
from training.errors import CorruptStoreError, DataError
from training.files import write_file

FORMAT = 3
"""3: descriptors and one index over them. Formats 1 and 2 held feature maps and are not read."""
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
class SearchEntry:
    """How the descriptors are searched.

    Args:
        factory: `flat`, or `IVFn`: n inverted lists.
        asked: whether a user named it; else it follows from the number of images.
        target: the recall@10 that was asked for, 0..1.
        file: the lists, a faiss index whose ids are rows; None if flat.
        probes: lists that a query reads; 0 if flat.
        filtered_probes: lists that a query with a filter reads; 0 if flat.
        recall: recall@10 measured without a filter, 0..1.
        worst_recall: the lowest of the recalls@10 measured under filters, 0..1.
    """

    factory: str = "flat"
    asked: bool = False
    target: float = 0.98
    file: FileEntry | None = None
    probes: int = 0
    filtered_probes: int = 0
    recall: float = 1.0
    worst_recall: float = 1.0

    @property
    def flat(self) -> bool:
        """Whether a query reads every descriptor."""
        return self.file is None


@dataclass(frozen=True)
class Identity:
    """What descriptors depend on besides the images; two indexes that differ never mix.

    Args:
        model: hash of weights, configuration and schema.
        preprocessing: hash of the preprocessing.
        schema: hash of the schema.
        layout: what the bytes of a descriptor are.
        root: that chances are raised to before they are rounded to a byte.
        precision: in which the backbone computed: `float32`, `bfloat16` or `int8`.
    """

    model: str
    preprocessing: str
    schema: str
    layout: DescriptorLayout
    root: float = ROOT
    precision: str = "float32"


@dataclass(frozen=True)
class Manifest:
    """One whole version of an index.

    Args:
        identity: model, preprocessing, schema and layout of the descriptors.
        dataset: name of the dataset.
        root: absolute folder that image paths are relative to.
        schema: `Schema.to_json`.
        preprocessing: `Preprocessing.to_json`.
        shards: in row order.
        gallery: labels, paths and payload of all rows; None while a build runs.
        model_files: the copied checkpoint.
        search: how the descriptors are searched.
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
    search: SearchEntry = SearchEntry()
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
        """Hash of the model and all descriptors: what their search depends on."""
        parts = [self.identity.model] + [s.file.sha256 for s in self.shards if s.file]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def files(self) -> list[FileEntry]:
        """Every file of this version, the manifest apart."""
        out = [*self.model_files, *(s.file for s in self.shards if s.file)]
        out += [self.gallery] if self.gallery else []
        return out + ([self.search.file] if self.search.file else [])


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically, with a hash of itself; raises ResourceError."""
    body = {"format": FORMAT} | asdict(manifest)
    write_file(path, json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode())


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None if there is none.

    Raises:
        CorruptStoreError: if it is damaged.
        DataError: if another version of this program wrote it, or it would lie in a file.
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
    if number < FORMAT:
        raise DataError(
            f"the index in {path.parent} was built by an earlier version (format {number} instead "
            f"of {FORMAT}): delete it and build it again with retrieve build-index"
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

    identity = data["identity"]
    groups = tuple((int(owner), int(size)) for owner, size in identity["layout"]["groups"])
    layout = DescriptorLayout(int(identity["layout"]["values"]), groups)
    return Manifest(
        identity=Identity(**identity | {"layout": layout}),
        dataset=str(data["dataset"]),
        root=str(data["root"]),
        schema=dict(data["schema"]),
        preprocessing=dict(data["preprocessing"]),
        shards=tuple(shard(entry) for entry in data["shards"]),
        gallery=file(data["gallery"]),
        model_files=tuple(FileEntry.from_json(entry) for entry in data["model_files"]),
        search=SearchEntry(**data["search"] | {"file": file(data["search"]["file"])}),
        int8_ranges=tuple((float(low), float(high)) for low, high in data["int8_ranges"]),
    )
