"""Encoding a gallery's images and committing them a shard at a time."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.encode.encode import BatchEncoder, EncodedBatch, Encoding, Forward
from indexer.progress import Progress
from indexer.store.files import problem_of
from indexer.store.gallery import PathList
from indexer.store.manifest import FileEntry, Manifest, Reject, ShardEntry
from indexer.store.shard import ShardFile, ShardRows, rows_a_shard, write_shard
from training.descriptor import DescriptorLayout
from training.errors import DataError
from training.files import leaves_root
from training.images.batches import NO_DIGEST, ReadBatch, ReadImage, read_batches
from training.images.preprocessing import Preprocessing
from training.images.read import NO_VERSION, read_image_file, version_of

_READERS = 4  # threads that hash files; the file system is waited for more than the processor
_OPEN = 4  # shards; an image that moved a little lies in one of two neighbours

Version = tuple[int, int]

Done = Callable[[int, ShardEntry], None]
"""Is given the number of a shard that is written, and what the manifest says of it."""


@dataclass(frozen=True)
class ShardPlan:
    """Consecutive images of one shard."""

    number: int  # 0-based
    rows: NDArray[np.int64]  # [n], of what is known of each, such as rows of the dataset
    paths: list[str]


def plan_shards(
    rows: NDArray[np.int64], paths: Sequence[str], shard_rows: int | None = None
) -> list[ShardPlan]:
    """Cut the dataset rows to be indexed into shards of `shard_rows` images, the last shorter."""
    size = shard_rows or rows_a_shard(len(rows))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [ShardPlan(n, own, [paths[row] for row in own]) for n, own in enumerate(parts)]


def listed_plans(shards: Sequence[ShardEntry], paths: Sequence[str]) -> list[ShardPlan]:
    """The shards of an index as they were listed: rows of its M images, and -1 for rejects."""
    plans, start = [], 0
    for number, shard in enumerate(shards):
        rows = list(range(start, start + shard.rows))
        start += shard.rows
        listed = [paths[row] for row in rows]
        for reject in shard.rejects:  # in their order
            rows.insert(reject.place, -1)
            listed.insert(reject.place, reject.path)
        plans.append(ShardPlan(number, np.array(rows, dtype=np.int64), listed))
    return plans


class EncodedImages:
    """The images of some shards, whose content has been checked, numbered through. Holds their
    digests, and few shards open."""

    def __init__(self, folder: Path, files: Sequence[FileEntry] = ()) -> None:
        @lru_cache(_OPEN)
        def shard(number: int) -> ShardRows:
            return ShardFile(folder, files[number], verify=False).rows

        self._shard, self._files = shard, files
        found = [np.array(shard(number).digests) for number in range(len(files))]
        self.digests = np.concatenate(found) if found else np.zeros((0, 32), np.uint8)
        """SHA-256 of each image's file, [N, 32] uint8."""
        self._starts = np.cumsum([0, *map(len, found)])
        keys = _keys(self.digests)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self.digests)

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The first image [M] int64 that has each of the digests [M, 32]; -1 where none has."""
        if not len(self):
            return np.full(len(digests), -1, dtype=np.int64)
        places = np.searchsorted(self._sorted, _keys(digests))
        rows = self._order[np.minimum(places, len(self) - 1)]
        # Two digests with equal first bytes are not expected; if so, the second is not found.
        same = (self.digests[rows] == digests).all(axis=1)
        return np.where(same, rows, -1).astype(np.int64)

    def only(self, images: NDArray[np.int64]) -> tuple[list[FileEntry], NDArray[np.int64]]:
        """The shards that hold images, by number [n], -1: none; and the numbers [n] that these have
        where there are no other shards."""
        known = images >= 0
        shards = np.searchsorted(self._starts, images[known], side="right") - 1
        used, places = np.unique(shards, return_inverse=True)
        starts = np.cumsum([0, *np.diff(self._starts)[used]])
        out = images.copy()
        out[known] += starts[places] - self._starts[shards]
        return [self._files[number] for number in used], out

    def copy(self, images: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Put the descriptors of images, by number [n], into `out` [n, width]; -1: leave it."""
        known = np.flatnonzero(images >= 0)
        shards = np.searchsorted(self._starts, images[known], side="right") - 1
        for number in np.unique(shards).tolist():
            here = known[shards == number]
            out[here] = self._shard(number).descriptors[images[here] - self._starts[number]]


@dataclass(frozen=True)
class ShardWork:
    """A shard that has to be written."""

    plan: ShardPlan
    images: NDArray[np.int64]  # [n], number of each among the encoded images; -1: it is none
    versions: list[Version]  # of each file when its content was compared; -1, -1: unknown
    rejects: dict[int, str] = field(default_factory=dict)  # by position: why it is not read

    @property
    def missing(self) -> list[int]:
        """Positions of the images that have to be encoded."""
        return [n for n in np.flatnonzero(self.images < 0).tolist() if n not in self.rejects]

    @classmethod
    def anew(cls, plan: ShardPlan) -> ShardWork:
        """All of it has to be encoded."""
        count = len(plan.paths)
        return cls(plan, np.full(count, -1, dtype=np.int64), [NO_VERSION] * count)


@dataclass(frozen=True)
class Work:
    """What has to be done for a version."""

    paths: Sequence[str]  # of all its images
    done: dict[int, ShardEntry]  # shards that stay as they are, by number
    work: list[ShardWork]  # the others, in row order
    encoded: EncodedImages  # that are copied

    @property
    def kept(self) -> int:
        """Images that need no encoding."""
        copied = sum(int((work.images >= 0).sum()) for work in self.work)
        return copied + sum(entry.rows for entry in self.done.values())

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
) -> Work:
    """What earlier builds with the same model have done of a plan, and what is left.

    A shard of the same paths stays as it is if sizes and times of change are the same, or else
    the files' content: a dataset that was copied or unpacked again is not encoded again. Images of
    other shards are looked for by content in the shards that no longer fit. Damaged shards are not
    used.
    """
    paths = [path for plan in plans for path in plan.paths]
    there = {entry.paths: entry for manifest in earlier for entry in manifest.shards}
    intact: dict[str, bool] = {}

    def usable(entry: ShardEntry) -> bool:
        if entry.file is None:
            return True
        if entry.file.name not in intact:
            intact[entry.file.name] = problem_of(folder, entry.file) is None
        return intact[entry.file.name]

    done: dict[int, ShardEntry] = {}
    for plan in plans:
        entry = there.get(list_hash(plan.paths))
        if entry is None:
            continue
        versions = [listed_version(root, path) for path in plan.paths]
        if list_hash(plan.paths, versions) == entry.listing and usable(entry):
            done[plan.number] = entry
    kept = {entry.paths for entry in done.values()}
    spare = {e.file.name: e.file for e in there.values() if e.paths not in kept and e.file}
    files = [e.file for e in there.values() if e.file and e.file.name in spare and usable(e)]
    encoded = EncodedImages(folder, files)
    rest = [plan for plan in plans if plan.number not in done]
    if not len(encoded):
        return Work(paths, done, [ShardWork.anew(plan) for plan in rest], encoded)
    progress.start("images compared", sum(len(plan.paths) for plan in rest))
    work = []
    with ThreadPoolExecutor(_READERS, "hash") as readers:
        for plan in rest:
            found = list(readers.map(lambda path: _identify(root, path), plan.paths))
            digests, versions = [f[0] for f in found], [f[1] for f in found]
            entry = there.get(list_hash(plan.paths))
            same = entry is not None and list_hash(plan.paths, digests) == entry.content
            if entry is not None and same and usable(entry):
                done[plan.number] = replace(entry, listing=list_hash(plan.paths, versions))
            else:
                table = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
                work.append(ShardWork(plan, encoded.find(table), versions))
            progress.advance(len(plan.paths))
    return Work(paths, done, work, encoded)


def list_hash(paths: Sequence[str], marks: Iterable[object] = repeat("")) -> str:
    """Hash of listed paths, with a mark of each: its `file_version`, or its SHA-256."""
    # NUL cannot occur in a path, so no two lists give the same bytes.
    text = "".join(f"{path}\0{mark!r}\0" for path, mark in zip(paths, marks, strict=False))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def listed_version(root: Path, path: str) -> Version:
    """The `file_version` of `root / path` as it is now; -1, -1 if there is none."""
    return NO_VERSION if leaves_root(path) else version_of(root / path)


def _identify(root: Path, path: str) -> tuple[bytes, Version]:
    """SHA-256 of a file and its version; zeros and -1, -1 if it cannot be read."""
    try:
        file = None if leaves_root(path) else read_image_file(root / path)
    except DataError:
        file = None
    if file is None:
        return NO_DIGEST, NO_VERSION
    return hashlib.sha256(file.content).digest(), file.version


def _keys(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0]


@dataclass(frozen=True)
class Encoder:
    """What makes descriptors, laid out as `layout`, of images below `root`.

    `batch_size` counts images, `workers` decoding threads.
    """

    root: Path
    layout: DescriptorLayout
    forward: Forward
    preprocessing: Preprocessing
    batch_size: int
    workers: int


class ShardBuffer:
    """Room for the descriptors of one shard, one place for every image that is listed for it."""

    def __init__(self, plan: ShardPlan, layout: DescriptorLayout) -> None:
        self._plan, self._layout = plan, layout
        self.descriptors = np.zeros((len(plan.paths), layout.width), np.uint8)
        self.images: list[ReadImage | None] = [None] * len(plan.paths)
        """What is known of every listed image, rejects included; None: nothing yet."""

    def add(self, places: list[int], batch: EncodedBatch) -> None:
        """Put encoded images in their places, [B]."""
        self.descriptors[places] = self._layout.pack(batch.chances, batch.nuance)

    def commit(self, folder: Path) -> ShardEntry:
        """Write what was added as a shard of the index; raises ResourceError."""
        paths, images = self._plan.paths, [image for image in self.images if image is not None]
        assert len(images) == len(paths), "every listed image must have been added"
        good = [place for place, image in enumerate(images) if not image.reason]
        digests = np.frombuffer(b"".join(images[i].digest for i in good), dtype=np.uint8)
        rows = ShardRows(
            self.descriptors[good],
            digests.reshape(len(good), 32),
            np.array(good, dtype=np.int32),
            PathList.of(paths[i] for i in good),
        )
        listed = enumerate(zip(paths, images, strict=True))
        return ShardEntry(
            file=write_shard(folder, self._plan.number, rows) if good else None,
            rows=len(good),
            paths=list_hash(paths),
            listing=list_hash(paths, [image.version for image in images]),
            content=list_hash(paths, [image.digest for image in images]),
            rejects=tuple(Reject(p, image.reason, n) for n, (p, image) in listed if image.reason),
        )


def encode_shards(
    folder: Path,
    todo: Work,
    encoder: Encoder,
    progress: Progress,
    committed: Done,
) -> None:
    """Copy, or decode and encode, and commit shards one after another.

    The device works without a pause: files are read while it computes, a batch's results
    are fetched once the next batch was handed over, and a full shard is written and hashed by a
    thread. Memory holds two shards and the batches on their way, whatever the gallery's size.

    `committed` is called with a shard's number once it is safely on disk, in their order, by
    another thread.
    Raises ResourceError: disk or memory full, or a worker process died; DataError: the model gives
    values that are not finite.
    """
    size, preprocessing = encoder.batch_size, encoder.preprocessing
    paths = [path for shard in todo.work for path in shard.plan.paths]
    batches: list[list[int]] = []
    start = 0
    for shard in todo.work:  # no batch straddles two shards
        missing = [start + place for place in shard.missing]
        batches += [missing[i : i + size] for i in range(0, len(missing), size)]
        start += len(shard.plan.paths)
    read = read_batches(encoder.root, paths, batches, preprocessing, encoder.workers)
    model = BatchEncoder(encoder.forward, progress.say)
    stream = one_ahead(read, model)

    def write(plan: ShardPlan, buffer: ShardBuffer) -> None:
        committed(plan.number, buffer.commit(folder))

    # Left by an error, the block waits for the shard that is being written: it is kept.
    with ThreadPoolExecutor(1, "shard-writer") as writer, closing(stream):
        writing: Future[None] | None = None
        start = 0
        for shard in todo.work:
            buffer = _begin(shard, todo, encoder.layout)
            left = len(shard.missing)
            while left:
                batch, results = next(stream)
                good = [place - start for place in batch.good]
                for result in results:
                    count = len(result.chances)
                    buffer.add(good[:count], result)
                    good = good[count:]
                for place, image in zip(batch.listed, batch.images, strict=True):
                    buffer.images[place - start] = image
                left -= len(batch.images)
                progress.advance(len(batch.images))
            start += len(shard.plan.paths)
            if writing is not None:
                writing.result()  # raises what went wrong; and no third shard is ever held
            writing = writer.submit(write, shard.plan, buffer)
        if writing is not None:
            writing.result()


def _begin(shard: ShardWork, todo: Work, layout: DescriptorLayout) -> ShardBuffer:
    """A shard with the images that are copied, and those that are known to be unreadable."""
    buffer = ShardBuffer(shard.plan, layout)
    todo.encoded.copy(shard.images, buffer.descriptors)
    for place in np.flatnonzero(shard.images >= 0).tolist():
        digest = todo.encoded.digests[shard.images[place]].tobytes()
        buffer.images[place] = ReadImage(None, "", digest, shard.versions[place])
    for place, reason in shard.rejects.items():
        buffer.images[place] = ReadImage(None, reason, NO_DIGEST, NO_VERSION)
    return buffer


def one_ahead(
    stream: Iterator[ReadBatch], encoder: BatchEncoder
) -> Generator[tuple[ReadBatch, Iterator[EncodedBatch]]]:
    """Batches and what they give, each once the next one was handed to the device."""
    started: deque[tuple[ReadBatch, list[Encoding]]] = deque()
    try:
        for batch in stream:
            started.append((batch, encoder.start(batch.pixels)))
            if len(started) == 2:
                done, encodings = started[0]
                yield done, encoder.results(done.pixels, encodings)
                started.popleft()
        for batch, encodings in started:
            yield batch, encoder.results(batch.pixels, encodings)
    finally:  # closed early, of use to nobody
        for _, encodings in started:
            for encoding in encodings:
                encoding.cancel()
