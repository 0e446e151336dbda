"""What has to be done for one shard: which of its images are copied, and which are encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encoded_images import EncodedImages
from indexer.manifest import Manifest, ShardEntry
from indexer.plan import ShardPlan, content_hash, listing_hash, paths_hash, stat_version
from indexer.progress import Progress
from indexer.store_file import is_intact
from training.decoding import NO_DIGEST
from training.errors import DataError
from training.image_file import NO_VERSION, read_image_file
from training.relative_path import leaves_root

_READERS = 4  # threads that hash files; the file system is waited for more than the processor


@dataclass(frozen=True)
class ShardWork:
    """A shard that has to be written.

    Args:
        plan: its images.
        images: for each its number among the encoded images, [n] int64; -1: to be encoded.
        versions: `file_version` of each file when its content was compared; -1, -1 if unknown.
    """

    plan: ShardPlan
    images: NDArray[np.int64]
    versions: list[tuple[int, int]]

    @property
    def missing(self) -> list[int]:
        """Positions of the images that have to be encoded."""
        return np.flatnonzero(self.images < 0).tolist()


@dataclass(frozen=True)
class BuildWork:
    """What a build has to do.

    Args:
        done: shards that stay as they are, by number.
        work: the others, in row order.
        encoded: the images that are copied.
    """

    done: dict[int, ShardEntry]
    work: list[ShardWork]
    encoded: EncodedImages

    @property
    def copied(self) -> int:
        """Images that are copied."""
        return sum(int((work.images >= 0).sum()) for work in self.work)

    @property
    def missing(self) -> int:
        """Images that have to be encoded."""
        return sum(len(work.missing) for work in self.work)


def plan_work(
    folder: Path,
    root: Path,
    plans: Sequence[ShardPlan],
    earlier: Iterable[Manifest],
    progress: Progress,
) -> BuildWork:
    """Find out what earlier builds have done of a plan.

    A shard of the same paths stays as it is if sizes and times of change are the same, or else
    the files' content: a dataset that was copied or unpacked again is not encoded again. Images of
    other shards are looked for by content in the shards that no longer fit. Damaged shards are not
    used.

    Args:
        folder: the index.
        root: the dataset's folder.
        plans: the shards to be.
        earlier: manifests of earlier builds with the same model.
        progress: is told if many files are compared.
    """
    there = {entry.paths: entry for manifest in earlier for entry in manifest.shards}
    intact: dict[str, bool] = {}

    def usable(entry: ShardEntry) -> bool:
        if entry.file is None:
            return True
        if entry.file.name not in intact:
            intact[entry.file.name] = is_intact(folder, entry.file)
        return intact[entry.file.name]

    done: dict[int, ShardEntry] = {}
    for plan in plans:
        entry = there.get(paths_hash(plan.paths))
        if entry is None:
            continue
        versions = [stat_version(root, path) for path in plan.paths]
        if listing_hash(plan.paths, versions) == entry.listing and usable(entry):
            done[plan.number] = entry
    kept = {entry.paths for entry in done.values()}
    files = {e.file.name: e.file for e in there.values() if e.file and e.paths not in kept}
    spare = [e for e in there.values() if e.file and e.file.name in files and usable(e)]
    encoded = EncodedImages(folder, [entry.file for entry in spare if entry.file])
    rest = [plan for plan in plans if plan.number not in done]
    if not len(encoded):
        everything = [_nothing_known(plan) for plan in rest]
        return BuildWork(done, everything, encoded)
    progress.start("images compared", sum(len(plan.paths) for plan in rest))
    work = []
    with ThreadPoolExecutor(_READERS, "hash") as readers:
        for plan in rest:
            found = list(readers.map(lambda path: _identify(root, path), plan.paths))
            digests, versions = [f[0] for f in found], [f[1] for f in found]
            entry = there.get(paths_hash(plan.paths))
            same = entry is not None and content_hash(plan.paths, digests) == entry.content
            if entry is not None and same and usable(entry):
                done[plan.number] = replace(entry, listing=listing_hash(plan.paths, versions))
            else:
                table = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
                work.append(ShardWork(plan, encoded.find(table), versions))
            progress.advance(len(plan.paths))
    return BuildWork(done, work, encoded)


def _nothing_known(plan: ShardPlan) -> ShardWork:
    count = len(plan.paths)
    return ShardWork(plan, np.full(count, -1, dtype=np.int64), [NO_VERSION] * count)


def _identify(root: Path, path: str) -> tuple[bytes, tuple[int, int]]:
    """SHA-256 of a file and its version; zeros and -1, -1 if it cannot be read."""
    if leaves_root(path):
        return NO_DIGEST, NO_VERSION
    try:
        file = read_image_file(root / path)
    except DataError:
        return NO_DIGEST, NO_VERSION
    return hashlib.sha256(file.content).digest(), file.version
