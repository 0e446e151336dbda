"""Image files to uint8 batches, decoded by threads: Pillow lets go of the GIL where the work is."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.files import leaves_root
from training.images.preprocessing import Preprocessing
from training.images.read import NO_VERSION, read_image_file, shown_path
from training.threads import threads

NO_DIGEST = bytes(32)

_AHEAD = 2  # batches that are decoded while one is used
_A_CORE = 8  # a CPU decodes about so many times faster than it encodes


@dataclass(frozen=True)
class Reading:
    """How the pictures of a dataset are read."""

    preprocessing: Preprocessing  # size and mode
    workers: int = 0  # decoding threads; 0 reads in this one
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


def read_batches(
    root: Path,
    paths: Sequence[str],
    batches: Iterable[Sequence[int]],
    preprocessing: Preprocessing,
    workers: int,
) -> Iterator[ReadBatch]:
    """Read the images at the positions in `paths` of each batch, in order, by so many threads or,
    with 0, in this one. An endless generator of batches is read a little ahead."""

    def read(position: int) -> ReadImage:
        return read_image(root, paths[position], preprocessing)

    if not workers:
        for batch in batches:
            yield _joined(map(read, batch), batch, preprocessing.size)
        return
    ahead: deque[tuple[Sequence[int], list[Future[ReadImage]]]] = deque()
    with ThreadPoolExecutor(workers, "decode") as pool:

        def first() -> ReadBatch:
            batch, images = ahead.popleft()
            return _joined((image.result() for image in images), batch, preprocessing.size)

        try:
            for batch in batches:
                ahead.append((batch, [pool.submit(read, position) for position in batch]))
                if len(ahead) > _AHEAD:
                    yield first()
            while ahead:
                yield first()
        finally:  # closed early, of use to nobody
            pool.shutdown(cancel_futures=True)


def _joined(images: Iterable[ReadImage], listed: Sequence[int], size: int) -> ReadBatch:
    read = list(images)
    good = [image.pixels for image in read if image.pixels is not None]
    pixels = np.stack(good) if good else np.zeros((0, 3, size, size), np.uint8)
    return ReadBatch(pixels, [replace(image, pixels=None) for image in read], list(listed))


def default_workers(device: str) -> int:
    """Decoding threads that keep a device fed."""
    return max(1, threads() // _A_CORE) if device == "cpu" else min(16, threads())
