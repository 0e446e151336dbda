"""Encoding a gallery's images and committing them a shard at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.encode import BatchEncoder, EncodedBatch, Encoding, Forward
from indexer.manifest import Reject, ShardEntry
from indexer.payload import PathList
from indexer.plan import ShardPlan, ShardWork, Work, list_hash
from indexer.progress import Progress
from indexer.shard import ShardRows, write_shard
from training.descriptor import DescriptorLayout
from training.images.batches import NO_DIGEST, ReadBatch, ReadImage, read_batches
from training.images.preprocessing import Preprocessing
from training.images.read import NO_VERSION


@dataclass(frozen=True)
class Encoder:
    """What makes descriptors, laid out as `layout`, of images below `root`.

    `forward` is on `device`; `batch_size` counts images, `workers` decoding processes.
    """

    root: Path
    layout: DescriptorLayout
    forward: Forward
    preprocessing: Preprocessing
    device: str
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
    committed: Callable[[ShardPlan, ShardEntry], None],
) -> None:
    """Copy, or decode and encode, and commit shards one after another.

    The device works without a pause: files are read while it computes, a batch's results
    are fetched once the next batch was handed over, and a full shard is written and hashed by a
    thread. Memory holds two shards and the batches on their way, whatever the gallery's size.

    `committed` is called after each shard is safely on disk, in their order, by another thread.

    Raises:
        ResourceError: disk or memory full, or a worker process died.
        DataError: the model gives values that are not finite.
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
    model = BatchEncoder(encoder.forward, preprocessing, encoder.device, progress.say)
    stream = _one_ahead(read, model)

    def write(plan: ShardPlan, buffer: ShardBuffer) -> None:
        committed(plan, buffer.commit(folder))

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


def _one_ahead(
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
