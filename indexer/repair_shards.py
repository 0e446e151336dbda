"""Encoding one shard again, from the images that it held, as it was encoded before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.calibration_images import calibration_images
from indexer.choose_forward import choose_forward
from indexer.encode_shards import encode_shards
from indexer.encoded_images import EncodedImages
from indexer.gallery import Gallery
from indexer.manifest import Manifest, ShardEntry
from indexer.plan import ShardPlan, paths_hash
from indexer.progress import Progress
from indexer.shard_work import ShardWork
from training.checkpoint import Checkpoint
from training.decoding import default_workers
from training.image_file import NO_VERSION

_BATCH_ON_CPU, _BATCH_ON_GPU = 32, 256  # as in a build, so that the same bytes come out


def encode_again(
    folder: Path,
    manifest: Manifest,
    number: int,
    gallery: Gallery,
    root: Path,
    checkpoint: Checkpoint,
    device: str,
    progress: Progress,
) -> ShardEntry:
    """Encode shard `number` of an index anew and commit its file; the manifest is not written.

    Args:
        folder: the index.
        manifest: its version.
        number: which shard, 0-based.
        gallery: sound; it says which images the shard holds.
        root: where the images are.
        checkpoint: the index's model, on `device`.
        device: what encodes.
        progress: is told of every batch.

    Returns:
        The new entry of the shard.

    Raises:
        ValueError: the images are gone or not those that were encoded; the message says how many.
        DataError, ResourceError: as `encode_shards`.
    """
    old = manifest.shards[number]
    start = sum(shard.rows for shard in manifest.shards[:number])
    own = slice(start, start + old.rows)
    paths = listed_paths(old, gallery.rows[own], gallery.paths[own])
    if paths is None:
        raise ValueError(
            "the order of its images is not known, since some could not be read; run the "
            "build-index command again: it encodes the damaged shards alone"
        )
    plan = ShardPlan(number, np.arange(len(paths)), paths)
    precision = manifest.identity.precision
    chosen = choose_forward(
        checkpoint.model,
        checkpoint.preprocessing.size,
        "onnx-int8" if precision == "int8" else "torch",
        precision,
        lambda: calibration_images(root, list(gallery.paths), checkpoint.preprocessing),
        manifest.int8_ranges,
    )
    made: list[ShardEntry] = []
    progress.start(f"images of shard {number}", len(paths))
    encode_shards(
        folder,
        root,
        [ShardWork(plan, np.full(len(paths), -1), [NO_VERSION] * len(paths))],
        EncodedImages(folder, []),
        checkpoint.model.layout,
        chosen.forward,
        checkpoint.preprocessing,
        device,
        _BATCH_ON_CPU if device == "cpu" else _BATCH_ON_GPU,
        default_workers(len(paths), device),
        progress,
        lambda _, entry: made.append(entry),
    )
    (entry,) = made
    if entry.content != old.content:
        known = {reject.path for reject in old.rejects}
        gone = [reject for reject in entry.rejects if reject.path not in known]
        what = (
            f"{len(gone):,} of its {old.rows:,} images cannot be read any more, such as "
            f"{root / gone[0].path} ({gone[0].reason})"
            if gone
            else "its images have changed since they were encoded"
        )
        raise ValueError(f"{what}; restore them, or run the build-index command again")
    return entry


def listed_paths(
    shard: ShardEntry, rows: NDArray[np.int64], paths: Sequence[str]
) -> list[str] | None:
    """All paths that were listed for a shard, in order, the unreadable ones included.

    Args:
        shard: the shard.
        rows: dataset rows of its images, [n] int64.
        paths: their paths.

    Returns:
        The paths, proven by their hash; None if the place of the unreadable ones is not known.
    """
    rejects = [reject.path for reject in shard.rejects]
    candidates = _with_rejects(rows.tolist(), list(paths), rejects)
    return next((c for c in candidates if paths_hash(c) == shard.paths), None)


def _with_rejects(rows: list[int], paths: list[str], rejects: list[str]) -> Iterator[list[str]]:
    """Ways to put the unreadable images where the dataset's rows have gaps, else at the ends."""
    if not rejects:
        yield paths
        return
    for before in range(len(rejects) + 1):
        out, left = rejects[:before], rejects[before:]
        for place, path in enumerate(paths):
            gap = rows[place] - rows[place - 1] - 1 if place else 0
            out += left[:gap] if gap > 0 else []
            left = left[gap:] if gap > 0 else left
            out.append(path)
        yield out + left
