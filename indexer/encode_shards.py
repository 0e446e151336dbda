"""Encoding and committing the shards that are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.encode import BatchEncoder, Forward
from indexer.manifest import Reject, ShardEntry
from indexer.plan import ShardPlan, content_hash, listing_hash, paths_hash
from indexer.progress import Progress
from indexer.shard import write_shard
from indexer.shard_buffer import ShardBuffer
from training.decoding import read_batches
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

    Memory holds one shard's maps and the batches on their way, whatever the gallery's size.

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
        committed: is called after each shard is safely on disk.

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
    stream = read_batches(root, paths, batches, preprocessing, workers)
    cells = model.grid[0] * model.grid[1]
    for plan in plans:
        buffer = ShardBuffer(len(plan.paths), cells, model.dim, model.schema.size)
        while len(buffer.images) < len(plan.paths):
            batch = next(stream)
            for encoded in encoder(batch.pixels):
                buffer.add_encoded(encoded)
            buffer.images += batch.images
            progress.advance(len(batch.images))
        committed(plan, _commit(folder, plan, buffer))


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
