"""Encoding and committing the shards that are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from indexer.encode import BatchEncoder, Encoding, Forward
from indexer.manifest import Reject, ShardEntry
from indexer.plan import ShardPlan, content_hash, listing_hash, paths_hash
from indexer.progress import Progress
from indexer.shard import write_shard
from indexer.shard_buffer import ShardBuffer
from training.decoding import ReadBatch, read_batches
from training.models.embedder import Embedder
from training.preprocessing import Preprocessing


def encode_shards(
    folder: Path,
    root: Path,
    plans: Sequence[ShardPlan],
    model: Embedder,
    forward: Forward,
    preprocessing: Preprocessing,
    device: str,
    batch_size: int,
    workers: int,
    progress: Progress,
    committed: Callable[[ShardPlan, ShardEntry], None],
) -> None:
    """Decode, encode and commit shards one after another.

    The device works without a pause: files are read by other processes, a batch's maps are
    fetched once the next batch was handed over, and a full shard is written and hashed by a
    thread. Memory holds two shards' maps and the batches on their way, whatever the gallery's
    size.

    Args:
        folder: the index.
        root: the dataset's folder.
        plans: the shards to encode.
        model: gives d, (H, W) and K.
        forward: the same model, from `torch_forward` or `onnx_forward`.
        preprocessing: the model's.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: images at a time.
        workers: decoding processes; 0 decodes in this one.
        progress: is told of every batch.
        committed: is called after each shard is safely on disk, in the order of `plans`, by
            another thread.

    Raises:
        ResourceError: disk or memory full, or a worker process died.
        DataError: the model gives values that are not finite.
    """
    paths = [path for plan in plans for path in plan.paths]
    batches: list[range] = []
    start = 0
    for plan in plans:  # no batch straddles two shards
        stop = start + len(plan.paths)
        batches += [range(i, min(i + batch_size, stop)) for i in range(start, stop, batch_size)]
        start = stop
    encoder = BatchEncoder(forward, preprocessing, device, progress.say)
    stream = _one_ahead(read_batches(root, paths, batches, preprocessing, workers), encoder)
    cells = model.grid[0] * model.grid[1]

    def write(plan: ShardPlan, buffer: ShardBuffer) -> None:
        committed(plan, _commit(folder, plan, buffer))

    # Left by an error, the block waits for the shard that is being written: it is kept.
    with ThreadPoolExecutor(1, "shard-writer") as writer:
        writing: Future[None] | None = None
        for plan in plans:
            buffer = ShardBuffer(len(plan.paths), cells, model.dim, model.schema.size)
            while len(buffer.images) < len(plan.paths):
                batch, encodings = next(stream)
                for encoding in encodings:
                    buffer.add_encoded(encoding.result())
                buffer.images += batch.images
                progress.advance(len(batch.images))
            if writing is not None:
                writing.result()  # raises what went wrong; and no third shard is ever held
            writing = writer.submit(write, plan, buffer)
        if writing is not None:
            writing.result()


def _one_ahead(
    stream: Iterator[ReadBatch], encoder: BatchEncoder
) -> Iterator[tuple[ReadBatch, list[Encoding]]]:
    """Batches and their encodings, each once the next one was handed to the device."""
    waiting = None
    for batch in stream:
        started = (batch, encoder(batch.pixels))
        if waiting is not None:
            yield waiting
        waiting = started
    if waiting is not None:
        yield waiting


def _commit(folder: Path, plan: ShardPlan, buffer: ShardBuffer) -> ShardEntry:
    rows = buffer.rows(plan.paths)
    listed = list(zip(plan.paths, buffer.images, strict=True))
    return ShardEntry(
        file=write_shard(folder, plan.number, rows) if len(rows) else None,
        rows=len(rows),
        listed=len(plan.paths),
        paths=paths_hash(plan.paths),
        listing=listing_hash(plan.paths, [image.version for image in buffer.images]),
        content=content_hash(plan.paths, [image.digest for image in buffer.images]),
        rejects=tuple(Reject(path, image.reason) for path, image in listed if image.reason),
    )
