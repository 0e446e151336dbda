"""Which images go into which shard, and the hashes by which a shard is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.image_file import NO_VERSION, file_version
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


def stat_version(root: Path, path: str) -> tuple[int, int]:
    """The `file_version` of `root / path` as it is now; -1, -1 if there is none."""
    if leaves_root(path):
        return NO_VERSION
    try:
        status = (root / path).stat()
    except (OSError, ValueError):
        return NO_VERSION
    return file_version(status)
