"""`manifest.json`, the only commit point of an index: what it consists of, and every file's hash.

A reader sees the files that one manifest names, so one whole version. While a build runs, its
finished shards are listed in `building.json`, a manifest of the same form without a gallery file.

    commit: manifest.json -> manifest.previous.json -> files of older versions are removed

Between the first two steps the copy is the version before, whose files are all there still; after
them it is the same version. So whichever of the two can be read names files that exist.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from training.descriptor import ROOT, DescriptorLayout
from training.errors import CorruptStoreError, DataError, LockedError
from training.files import as_resource_error, remove_temporaries, write_file

FORMAT = 4
MANIFEST_NAME = "manifest.json"
COPY_NAME = "manifest.previous.json"
BUILDING_NAME = "building.json"
LOCK_NAME = "lock"
PARTS_NAME = "parts"
"""Folder of parts that are encoded one by one: each is locked, written and swept by itself."""

DEFAULT_RECALL = 0.98
"""Recall@10 against the search of every descriptor that inverted lists have to reach."""

_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_OURS = ("shards/*.h5", "gallery-*.h5", "search-*.faiss", "model/*/*")


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies in a file, so that nobody has to parse the file to read it.

    `dtype` is as `numpy.dtype.str` has it; `offset`, its first byte, is None if it has no element.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None


@dataclass(frozen=True)
class FileEntry:
    """A file of the index: its name relative to the folder, hashes of its content, in hexadecimal,
    and its size in bytes. XXH3, of 128 bits, is no protection from a forger, but checked ten times
    as fast; None: not computed. `arrays`: what it holds, if it is a file of arrays."""

    name: str
    sha256: str
    size: int
    fast: str | None = None
    arrays: tuple[ArrayPlace, ...] = ()


@dataclass(frozen=True)
class Reject:
    """An image that could not be read, why, and its position among those listed for its shard."""

    path: str
    reason: str
    place: int


@dataclass(frozen=True)
class ShardEntry:
    """A committed shard and the listed images that it was made from."""

    file: FileEntry | None  # None: none of its images could be read
    rows: int
    paths: str  # hash of the listed paths, rejects included
    listing: str  # hash of the listed paths with size and time of change
    content: str  # hash of the listed paths with each file's SHA-256
    rejects: tuple[Reject, ...]  # in their order


@dataclass(frozen=True)
class SearchEntry:
    """How the descriptors are searched; recalls are recall@10, 0..1."""

    factory: str = "flat"  # or `IVFn`: n inverted lists
    asked: bool = False  # whether a user named it; else it follows from the number of images
    target: float = DEFAULT_RECALL  # the recall that was asked for
    file: FileEntry | None = None  # the lists, a faiss index whose ids are rows; None if flat
    probes: int = 0  # lists that a query reads; 0 if flat
    filtered_probes: int = 0  # the same with a filter
    recall: float = 1.0  # measured without a filter
    worst_recall: float = 1.0  # the lowest measured under filters


@dataclass(frozen=True)
class Identity:
    """What descriptors depend on besides the images; two indexes that differ never mix."""

    model: str  # hash of weights, configuration and schema
    preprocessing: str  # its hash
    schema: str  # its hash
    layout: DescriptorLayout
    root: float = ROOT  # that chances are raised to before they are rounded to a byte
    precision: str = "float32"  # of the backbone; or `bfloat16` or `int8`


@dataclass(frozen=True)
class Manifest:
    """One whole version of an index; schema and preprocessing as their `to_json` gives them."""

    identity: Identity
    dataset: str  # its name
    root: str  # absolute folder that image paths are relative to
    schema: dict[str, Any]
    preprocessing: dict[str, Any]
    shards: tuple[ShardEntry, ...] = ()  # in row order
    gallery: FileEntry | None = None  # None while a build runs
    model_files: tuple[FileEntry, ...] = ()  # the copied checkpoint
    search: SearchEntry = SearchEntry()

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
    def named_files(self) -> dict[FileEntry, str]:
        """Every file of this version, the manifest apart: `model`, `shard`, `gallery`, `search`."""
        out = dict.fromkeys(self.model_files, "model")
        out |= {shard.file: "shard" for shard in self.shards if shard.file}
        out |= {self.gallery: "gallery"} if self.gallery else {}
        return out | ({self.search.file: "search"} if self.search.file else {})

    @property
    def files(self) -> list[FileEntry]:
        """Every file of this version, the manifest apart."""
        return list(self.named_files)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically, with a hash of itself; raises ResourceError."""
    body = {"format": FORMAT} | asdict(manifest)
    write_file(path, json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode())


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None if there is none.

    Raises CorruptStoreError if it is damaged, and DataError if another version of this program
    wrote it, or it would lie in a file.
    """
    try:
        # Not by msgspec's own parser: names of files that are not UTF-8 have lone surrogates.
        data = json.loads(path.read_bytes())
        checksum = data.pop("checksum")
        number = int(data.pop("format"))
        if number == FORMAT:
            if checksum != _checksum({"format": FORMAT} | data):
                raise ValueError("its checksum does not match")
            manifest = msgspec.convert(data, Manifest)
            for entry in manifest.files:
                if not all(_SAFE_PART.fullmatch(part) for part in entry.name.split("/")):
                    raise ValueError(f"it names a file outside of the index: {entry.name!r}")
            return manifest
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise DataError(f"no index in {path.parent}: that is no folder") from error
    except OSError as error:
        raise CorruptStoreError(f"cannot read {path}: {error.strerror}") from error
    except (*_DAMAGED, msgspec.ValidationError) as error:
        why = f"{path} is damaged ({error}); run build-index again"
        raise CorruptStoreError(why) from error
    who, what = ("a newer", "install that") if number > FORMAT else ("an earlier", "delete it")
    raise DataError(
        f"the index in {path.parent} has format {number} instead of {FORMAT}, it was built by "
        f"{who} version of this program: {what}, or build it again with retrieve build-index"
    )


def _checksum(body: dict[str, Any]) -> str:
    # Through JSON, so that tuples and lists, written and read, give the same text.
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Committed:
    """A version of an index; `remark` says why it is not the one that it should be."""

    manifest: Manifest
    remark: str | None = None


def commit_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a version the current one; what it replaces may be removed afterwards.

    Raises ResourceError if it cannot be written; the current version is the old or the new one.
    """
    write_manifest(folder / MANIFEST_NAME, manifest)  # the commit
    write_manifest(folder / COPY_NAME, manifest)


def committed_versions(folder: Path) -> Iterator[Committed]:
    """The current version, then the copy if it says something else; each read when asked for.

    Raises CorruptStoreError if nothing can be read and something is damaged, and DataError as
    `read_manifest`.
    """
    path, current, copy, trouble = folder / MANIFEST_NAME, None, None, None
    try:
        current = read_manifest(path)
    except CorruptStoreError as error:
        trouble = error
    if current is not None:
        yield Committed(current)
    try:
        copy = read_manifest(folder / COPY_NAME)
    except CorruptStoreError as error:
        trouble = trouble or error
    if copy is not None and copy != current:
        wrong = "is damaged" if trouble else "cannot be used" if path.exists() else "is missing"
        which = f"reading {COPY_NAME} instead, {copy.rows:,} images"
        yield Committed(copy, f"{path} {wrong}: {which}; {remedy(folder)}")
    if current is None and copy is None and trouble is not None:
        raise trouble


def remedy(folder: Path) -> str:
    """What to do about a damaged file."""
    return f"`retrieve verify {folder} --repair` restores what can be restored"


def sweep(folder: Path, manifest: Manifest, halted: bool) -> None:
    """Remove files that this version does not name; files that are not ours are left alone.

    Only for the holder of the lock; raises ResourceError. Readers that hold such a file open keep
    reading it. With `halted` what an interrupted build has committed so far stays, too.
    """
    building = None
    if halted:
        with suppress(CorruptStoreError, DataError):
            building = read_manifest(folder / BUILDING_NAME)
    named = {folder / e.name for version in (manifest, building) if version for e in version.files}
    with as_resource_error(folder):
        if building is None:
            (folder / BUILDING_NAME).unlink(missing_ok=True)
        for pattern in _OURS:
            for path in folder.glob(pattern):
                if path not in named and path.is_file():
                    path.unlink()
        for place in (folder / "model").glob("*"):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the index in `folder` for writing; the folder is made if it is missing.

    The kernel drops the lock when the process ends, however it ends, so there are no stale locks;
    the file stays, since removing it would let a third process lock another file of that name.
    What killed writers left is removed. Raises LockedError at once, naming its pid, if another
    process holds it, and ResourceError if the folder cannot be written to.
    """
    with as_resource_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Not inherited by children (Python's default): a surviving worker must not hold the lock.
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise LockedError(
                f"{folder}: process {owner} is writing to this index; wait for it to end, "
                "or give another folder with --out"
            ) from None
        with as_resource_error(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            remove_temporaries(folder, PARTS_NAME)
        yield
    finally:
        os.close(descriptor)


def check_unlocked(folder: Path) -> None:
    """Raise LockedError if another process writes to `folder` now; before long work. Creates
    nothing."""
    if (folder / LOCK_NAME).exists():
        with writer_lock(folder):
            pass
