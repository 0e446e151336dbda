"""Removing what no version of an index needs any more."""

from __future__ import annotations

from pathlib import Path

from indexer.manifest import Manifest
from training.files import as_resource_error

_OURS = ("shards/*.h5", "gallery-*.h5", "search-*.faiss", "model/*/*")


def sweep(folder: Path, manifest: Manifest, halted: Manifest | None = None) -> None:
    """Remove files of other versions; files that this program does not make are left alone.

    The shards of a build that was interrupted stay, if its manifest is given.

    Only for the holder of the lock. Readers that hold such a file open keep reading it.

    Raises:
        ResourceError: if a file cannot be removed.
    """
    versions = [manifest] if halted is None else [manifest, halted]
    named = {folder / entry.name for version in versions for entry in version.files}
    with as_resource_error(folder):
        for pattern in _OURS:
            for path in folder.glob(pattern):
                if path not in named and path.is_file():
                    path.unlink()
        for place in (folder / "model").glob("*"):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
