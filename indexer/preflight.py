"""Before a long build: whether there is room for it, and how long it will take."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.encode import Forward, encode
from indexer.index_choice import LISTS_FROM
from indexer.manifest import Manifest
from training.decoding import read_image
from training.errors import ResourceError
from training.preprocessing import Preprocessing
from training.schema import Schema

PROBE_FROM = 1000
"""Images to encode from which a few are timed first."""

_PROBED = 8  # images on a CPU; a whole batch on a GPU
_PATH = 64  # bytes of a path, about
_SPARE = 64 << 20  # bytes left for manifests, folders and other processes


def disk_needed(draft: Manifest, images: int, encode: int) -> int:
    """Bytes that a build writes, beside the version that it replaces.

    Args:
        draft: gives K and the layout of descriptors.
        images: M, in the index to be.
        encode: of them to be encoded.
    """
    width = draft.identity.layout.width
    stored = width + 32 + 4 + _PATH  # of an image
    gallery = 8 + Schema.from_json(draft.schema).size + 1 + 8 + _PATH
    lists = width + 8 if images >= LISTS_FROM else 0
    return encode * stored + images * (gallery + lists)


def check_room(needed: int, folder: Path) -> str:
    """What a build writes into the index `folder` and what is free there, for a person.

    Raises:
        ResourceError: there is not that much; the message names the figures.
    """
    free = shutil.disk_usage(folder).free
    room = f"needs {_in_bytes(needed)} in {folder}, where {_in_bytes(free)} are free"
    if needed + _SPARE > free:
        raise ResourceError(f"the index {room}; free some space, give another folder with --out")
    return room


def _in_bytes(count: int) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "KB")):
        if count >= 10**power:
            return f"{count / 10**power:,.3g} {unit}"
    return f"{count} bytes"


def seconds_to_encode(
    forward: Forward,
    preprocessing: Preprocessing,
    device: str,
    root: Path,
    paths: Sequence[str],
    batch_size: int,
    workers: int,
) -> float:
    """About how long decoding and encoding will take, from a few images, each timed once warm.

    Args:
        forward: the model.
        preprocessing: the model's.
        device: `cpu`, `cuda` or `cuda:N`.
        root: the dataset's folder.
        paths: the images to be encoded, at least one.
        batch_size: images at a time.
        workers: decoding processes; 0 decodes in this one, on a GPU between two batches.
    """
    chosen = paths[:: max(1, len(paths) // _PROBED)][:_PROBED]
    started = time.perf_counter()
    for path in chosen:
        read_image(root, path, preprocessing)
    decoding = (time.perf_counter() - started) / len(chosen)
    count = batch_size if device != "cpu" else min(batch_size, _PROBED)
    pixels = np.zeros((count, 3, preprocessing.size, preprocessing.size), np.uint8)
    for _ in range(2):  # the first sets up memory and kernels
        started = time.perf_counter()
        encode(forward, pixels, preprocessing, device)
    seconds = (time.perf_counter() - started) / count
    cores = os.cpu_count() or 1
    together = max(seconds, decoding / min(workers, cores)) if workers else seconds + decoding
    return together * len(paths)


def in_words(seconds: float) -> str:
    """A duration as a person says it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
