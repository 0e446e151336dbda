"""The last good version of an index: `manifest.json`, and a copy of it should that be damaged.

    commit: manifest.json -> manifest.previous.json -> files of older versions are removed

Between the first two steps the copy is the version before, whose files are all there still; after
them it is the same version. So whichever of the two can be read names files that exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from indexer.store_file import remedy
from training.errors import CorruptStoreError

COPY_NAME = "manifest.previous.json"


@dataclass(frozen=True)
class Committed:
    """A version of an index; `remark` says why it is not the one that it should be."""

    manifest: Manifest
    remark: str | None = None


def commit_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a version the current one; what it replaces may be removed afterwards.

    Raises:
        ResourceError: if it cannot be written; the current version is the old or the new one.
    """
    write_manifest(folder / MANIFEST_NAME, manifest)  # the commit
    write_manifest(folder / COPY_NAME, manifest)


def committed_versions(folder: Path) -> Iterator[Committed]:
    """The current version, then the copy if it says something else; each read when asked for.

    Raises:
        CorruptStoreError: nothing can be read and something is damaged.
        DataError: a newer version of this program wrote the manifest.
    """
    current, trouble = None, None
    try:
        current = read_manifest(folder / MANIFEST_NAME)
    except CorruptStoreError as error:
        trouble = error
    if current is not None:
        yield Committed(current)
    try:
        copy = read_manifest(folder / COPY_NAME)
    except CorruptStoreError as error:
        copy, trouble = None, trouble or error
    if copy is not None and copy != current:
        yield Committed(copy, _remark(folder, copy, trouble))
    if current is None and copy is None and trouble is not None:
        raise trouble


def read_committed(folder: Path) -> Committed | None:
    """The last good version, None if there is none; raises as `committed_versions`."""
    return next(committed_versions(folder), None)


def _remark(folder: Path, copy: Manifest, trouble: CorruptStoreError | None) -> str:
    path = folder / MANIFEST_NAME
    wrong = "is damaged" if trouble else "cannot be used"
    wrong = wrong if path.exists() else "is missing"
    return f"{path} {wrong}: reading {COPY_NAME} instead, {copy.rows:,} images; {remedy(folder)}"
