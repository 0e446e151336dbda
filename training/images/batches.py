"""Image files to uint8 batches, in worker processes.

Workers are spawned, not forked: a fork of a process whose torch or faiss has started threads can
hang. They hand over numpy arrays through a pipe rather than tensors through shared memory, which
containers often limit to 64 MB.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from training.errors import DataError, ResourceError
from training.files import leaves_root
from training.images.preprocessing import Preprocessing
from training.images.read import NO_VERSION, read_image_file, shown_path


def worker_death(error: BaseException) -> ResourceError | None:
    """What a user is told if an error says that a decoding process died; None if it does not.

    Torch raises it wherever the main thread is: from the handler of the signal that a child ended.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker (pid" not in str(error):
        return None
    return ResourceError(
        f"a decoding process ended unexpectedly ({str(error).splitlines()[0]}); run again with "
        "fewer --workers: a build goes on where it stopped, training with --resume"
    )


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes in the block that SIGINT never reaches, not even while they import.

    They inherit that this thread does not take it; one that comes meanwhile is taken afterwards.
    """
    resource_tracker.ensure_running()  # started in the block, it would take the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


NO_DIGEST = bytes(32)
SERIAL_LIMIT = 256


@dataclass(frozen=True)
class Reading:
    """How the pictures of a dataset are read."""

    preprocessing: Preprocessing  # size and mode
    workers: int = 0  # decoding processes; 0 reads in this one
    tick: Callable[[int], None] = lambda count: None  # told of so many images just done


@dataclass(frozen=True)
class ReadImage:
    """One image file, or why there is none."""

    pixels: NDArray[np.uint8] | None  # uint8 [3, S, S]; None if it could not be read
    reason: str  # why not; empty if it could
    digest: bytes  # SHA-256 of the very bytes that were decoded; zeros if there were none
    # size and time of the file that was read (`file_version`); -1, -1 if there was none, or if it
    # was so fresh that its content alone can tell whether it changes again
    version: tuple[int, int]


@dataclass(frozen=True)
class ReadBatch:
    """One batch, in the order of the list."""

    pixels: NDArray[np.uint8]  # uint8 [B, 3, S, S], those that could be read
    images: list[ReadImage]  # one a listed image, pixels removed
    listed: list[int]  # position in the list of paths of each listed image

    @property
    def good(self) -> list[int]:
        """Positions in the list of paths of the images that could be read, B of them."""
        return [n for n, image in zip(self.listed, self.images, strict=True) if not image.reason]

    @property
    def failures(self) -> list[tuple[int, str]]:
        """Position and reason of those that could not."""
        pairs = zip(self.listed, self.images, strict=True)
        return [(n, image.reason) for n, image in pairs if image.reason]


def read_image(root: Path, path: str, preprocessing: Preprocessing) -> ReadImage:
    """Read, hash, decode and fit the image `root / path`; never raises on a bad image."""
    if leaves_root(path):
        return ReadImage(None, "the path leaves the dataset's folder", NO_DIGEST, NO_VERSION)
    shown, digest, version = shown_path(root / path), NO_DIGEST, NO_VERSION
    try:
        file = read_image_file(root / path)
        digest, version = hashlib.sha256(file.content).digest(), file.version
        return ReadImage(preprocessing.decode(file.content, shown), "", digest, version)
    except DataError as error:  # without the path, which stands beside it in the report
        return ReadImage(None, str(error).removeprefix(f"{shown}: "), digest, version)
    except MemoryError:
        return ReadImage(None, "out of memory while decoding", digest, version)


class _Batches(Dataset[ReadBatch]):
    """The listed files, for a DataLoader; holds no open file, so it travels to a worker."""

    def __init__(self, root: Path, paths: Sequence[str], preprocessing: Preprocessing) -> None:
        self._root, self._paths, self._preprocessing = root, list(paths), preprocessing

    def __getitem__(self, positions: Sequence[int]) -> ReadBatch:
        images = [read_image(self._root, self._paths[n], self._preprocessing) for n in positions]
        good = [image.pixels for image in images if image.pixels is not None]
        size = self._preprocessing.size
        pixels = np.stack(good) if good else np.zeros((0, 3, size, size), np.uint8)
        bare = [replace(image, pixels=None) for image in images]
        return ReadBatch(pixels, bare, list(positions))


def read_batches(
    root: Path,
    paths: Sequence[str],
    batches: Iterable[Sequence[int]],
    preprocessing: Preprocessing,
    workers: int,
) -> Iterator[ReadBatch]:
    """Read the images at the positions in `paths` of each batch, in order, by so many processes or,
    with 0, in this one.

    Of a list of batches the first few images are read in this process, an endless generator is read
    a little ahead. Raises ResourceError if a worker dies (killed for memory, for example).
    """
    files = _Batches(root, paths, preprocessing)
    first: list[Sequence[int]] = []
    if isinstance(batches, list):
        count = int((np.cumsum([len(batch) for batch in batches]) <= SERIAL_LIMIT).sum())
        first, batches = batches[:count], batches[count:]
        workers = workers if batches else 0
    loader = DataLoader(
        files,
        sampler=batches,
        batch_size=None,  # the sampler gives whole batches
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
    )
    try:
        with without_interrupts() if workers else nullcontext():
            rest = iter(loader)
        for batch in first:  # workers take seconds to start
            yield files[batch]
        yield from rest
    except RuntimeError as error:
        death = worker_death(error)
        if death is None:
            raise
        raise death from error


def default_workers(images: int, device: str) -> int:
    """Decoding processes for so many images: none where starting them would cost more.

    A CPU decodes some ten times faster than it encodes: with few cores this process keeps them fed
    while they compute, with more of them one other does.
    """
    cores = os.cpu_count() or 2
    if images <= SERIAL_LIMIT or (device == "cpu" and cores <= 4):
        return 0
    return 1 if device == "cpu" else max(1, min(16, cores - 1))
