"""Before a long build: what it will take, and whether there is that much.

Disk and memory are computed from shapes, before anything is encoded; what a build writes it writes
once (a temporary name is only a name), beside the version that it replaces. Time is measured on a
few images.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
_WORKER = 300 << 20  # bytes of a decoding process: torch is imported in it
_SPARE = 64 << 20  # bytes left for manifests, folders and other processes


@dataclass(frozen=True)
class Needs:
    """What a build will take.

    Args:
        images: in the index to be.
        encode: of them to be encoded.
        disk: bytes that will be written.
        memory: bytes beyond what the process holds already, at the least: activations, which
            shrink where memory is short, come on top.
    """

    images: int
    encode: int
    disk: int
    memory: int


def needs_of(draft: Manifest, images: int, encode: int, batch_size: int, workers: int) -> Needs:
    """Compute what a build takes.

    Args:
        draft: gives K, S and the layout of descriptors.
        images: M, in the index to be.
        encode: of them to be encoded.
        batch_size: images at a time.
        workers: decoding processes.
    """
    values = Schema.from_json(draft.schema).size
    size = Preprocessing.from_json(draft.preprocessing).size
    width = draft.identity.layout.width
    stored = width + 32 + 4 + _PATH  # of an image
    gallery = 8 + values + 1 + 8 + _PATH
    lists = width + 8 if images >= LISTS_FROM else 0
    disk = encode * stored + images * (gallery + lists)
    encoding = (2 * workers + 2) * batch_size * 3 * size * size + workers * _WORKER
    return Needs(images, encode, disk, max(encoding if encode else 0, images * (gallery + lists)))


def check_needs(needs: Needs, folder: Path) -> str:
    """What a build takes and what there is, in one line for a person.

    Args:
        needs: from `needs_of`.
        folder: the index; it is there.

    Raises:
        ResourceError: there is not that much; the message names the figures.
    """
    free = shutil.disk_usage(folder).free
    available = available_memory()
    disk = f"{_in_bytes(needs.disk)} in {folder}, where {_in_bytes(free)} are free"
    if needs.disk + _SPARE > free:
        raise ResourceError(
            f"the index of {needs.images:,} images needs {disk}; free some space, give another "
            "folder with --out"
        )
    memory = f"{_in_bytes(needs.memory)} of memory"
    if available is not None:
        memory += f", of which {_in_bytes(available)} are available"
        if needs.memory > available:
            raise ResourceError(
                f"building the index of {needs.images:,} images needs {memory}; give a smaller "
                "--batch-size, or fewer --workers"
            )
    images = f"{needs.images:,} images, {needs.encode:,} of them to be encoded"
    return f"{images}; needs {disk}, and {memory}"


def _in_bytes(count: int) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "KB")):
        if count >= 10**power:
            return f"{count / 10**power:,.3g} {unit}"
    return f"{count} bytes"


def available_memory() -> int | None:
    """Bytes that a process can get without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return int(found[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


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
    seconds = 0.0
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
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
