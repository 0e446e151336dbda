"""Writing the shards that are not there yet: images copied where they can be, else encoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from indexer.encode import BatchEncoder, EncodedBatch, Encoding, Forward
from indexer.encoded_images import EncodedImages
from indexer.manifest import Reject, ShardEntry
from indexer.plan import ShardPlan, content_hash, listing_hash, paths_hash
from indexer.progress import Progress
from indexer.shard import write_shard
from indexer.shard_buffer import ShardBuffer
from indexer.shard_work import ShardWork
from training.decoding import ReadBatch, read_batches
from training.descriptor import DescriptorLayout
from training.preprocessing import Preprocessing


def encode_shards(
    folder: Path,
    root: Path,
    work: Sequence[ShardWork],
    encoded: EncodedImages,
    layout: DescriptorLayout,
    forward: Forward,
    preprocessing: Preprocessing,
    device: str,
    batch_size: int,
    workers: int,
    progress: Progress,
    committed: Callable[[ShardPlan, ShardEntry], None],
) -> None:
    """Copy, or decode and encode, and commit shards one after another.

    The device works without a pause: files are read while it computes, a batch's results
    are fetched once the next batch was handed over, and a full shard is written and hashed by a
    thread. Memory holds two shards and the batches on their way, whatever the gallery's size.

    Args:
        folder: the index.
        root: the dataset's folder.
        work: the shards to write.
        encoded: the images that are copied.
        layout: of the descriptors.
        forward: the model, from `torch_forward` or `onnx_forward`.
        preprocessing: the model's.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: images at a time.
        workers: decoding processes; 0 decodes in this one.
        progress: is told of every batch.
        committed: is called after each shard is safely on disk, in the order of `work`, by
            another thread.

    Raises:
        ResourceError: disk or memory full, or a worker process died.
        DataError: the model gives values that are not finite.
    """
    paths = [path for shard in work for path in shard.plan.paths]
    batches: list[list[int]] = []
    start = 0
    for shard in work:  # no batch straddles two shards
        missing = [start + place for place in shard.missing]
        batches += [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        start += len(shard.plan.paths)
    encoder = BatchEncoder(forward, preprocessing, device, progress.say)
    stream = _one_ahead(read_batches(root, paths, batches, preprocessing, workers), encoder)

    def write(plan: ShardPlan, buffer: ShardBuffer) -> None:
        committed(plan, commit_shard(folder, plan, buffer))

    # Left by an error, the block waits for the shard that is being written: it is kept.
    with ThreadPoolExecutor(1, "shard-writer") as writer, closing(stream):
        writing: Future[None] | None = None
        start = 0
        for shard in work:
            plan = shard.plan
            buffer = ShardBuffer(len(plan.paths), layout)
            buffer.add_copies(encoded, shard.images, shard.versions)
            left = len(shard.missing)
            while left:
                batch, results = next(stream)
                good = [place - start for place in batch.good]
                for result in results:
                    count = len(result.chances)
                    buffer.add_encoded(good[:count], result)
                    good = good[count:]
                for place, image in zip(batch.listed, batch.images, strict=True):
                    buffer.images[place - start] = image
                left -= len(batch.images)
                progress.advance(len(batch.images))
            start += len(plan.paths)
            if writing is not None:
                writing.result()  # raises what went wrong; and no third shard is ever held
            writing = writer.submit(write, plan, buffer)
        if writing is not None:
            writing.result()


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


def commit_shard(folder: Path, plan: ShardPlan, buffer: ShardBuffer) -> ShardEntry:
    """Write what a buffer holds as a shard of the index; raises ResourceError."""
    rows = buffer.rows(plan.paths)
    images = [image for image in buffer.images if image is not None]
    listed = list(zip(plan.paths, images, strict=True))
    return ShardEntry(
        file=write_shard(folder, plan.number, rows) if len(rows) else None,
        rows=len(rows),
        listed=len(plan.paths),
        paths=paths_hash(plan.paths),
        listing=listing_hash(plan.paths, [image.version for image in images]),
        content=content_hash(plan.paths, [image.digest for image in images]),
        rejects=tuple(Reject(path, image.reason) for path, image in listed if image.reason),
    )
