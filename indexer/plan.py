"""Which images go into which shard, and which committed shards can be kept as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.manifest import ShardEntry
from indexer.store_file import is_intact
from training.decoding import NO_DIGEST
from training.errors import DataError
from training.image_file import NO_VERSION, file_version, read_image_file
from training.relative_path import leaves_root


@dataclass(frozen=True)
class ShardPlan:
    """Consecutive images of one shard.

    Args:
        number: 0-based.
        rows: their rows in the dataset, [n] int64.
        paths: their paths, n.
    """

    number: int
    rows: NDArray[np.int64]
    paths: list[str]


def plan_shards(rows: NDArray[np.int64], paths: Sequence[str], shard_rows: int) -> list[ShardPlan]:
    """Cut the dataset rows to be indexed into shards of `shard_rows` images, the last shorter."""
    starts = range(0, len(rows), shard_rows)
    return [
        ShardPlan(
            number,
            rows[start : start + shard_rows],
            [paths[row] for row in rows[start : start + shard_rows]],
        )
        for number, start in enumerate(starts)
    ]


def paths_hash(paths: Iterable[str]) -> str:
    """Hash of listed paths."""
    return _hash((path, "") for path in paths)


def listing_hash(paths: Sequence[str], stats: Sequence[tuple[int, int]]) -> str:
    """Hash of listed paths with the `file_version` of each; -1, -1 if unreadable."""
    return _hash((p, f"{s} {m}") for p, (s, m) in zip(paths, stats, strict=True))


def content_hash(paths: Sequence[str], digests: Sequence[bytes]) -> str:
    """Hash of listed paths with the SHA-256 of each file; zeros if unreadable."""
    return _hash((p, d.hex()) for p, d in zip(paths, digests, strict=True))


def _hash(pairs: Iterable[tuple[str, str]]) -> str:
    # NUL cannot occur in a path, so no two lists give the same bytes.
    text = "".join(f"{path}\0{mark}\0" for path, mark in pairs)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def reusable(
    folder: Path, root: Path, plan: ShardPlan, committed: dict[str, ShardEntry]
) -> ShardEntry | None:
    """The committed shard that holds just the plan's images, unchanged since; None if none does.

    Sizes and times of change decide; where they differ the files' content does, so that a
    dataset that was copied or unpacked again is not encoded again. A damaged shard is not kept.

    Args:
        folder: the index.
        root: the dataset's folder.
        plan: the shard to be.
        committed: shards of earlier builds with the same model, by hash of their paths.
    """
    entry = committed.get(paths_hash(plan.paths))
    if entry is None:
        return None
    listing = listing_hash(plan.paths, [_stat(root, path) for path in plan.paths])
    if listing != entry.listing:
        digests = [_digest(root, path) for path in plan.paths]
        if content_hash(plan.paths, digests) != entry.content:
            return None
        entry = replace(entry, listing=listing)
    return entry if entry.file is None or is_intact(folder, entry.file) else None


def _stat(root: Path, path: str) -> tuple[int, int]:
    if leaves_root(path):
        return NO_VERSION
    try:
        status = (root / path).stat()
    except (OSError, ValueError):
        return NO_VERSION
    return file_version(status)


def _digest(root: Path, path: str) -> bytes:
    if leaves_root(path):
        return NO_DIGEST
    try:
        return hashlib.sha256(read_image_file(root / path).content).digest()
    except DataError:
        return NO_DIGEST
