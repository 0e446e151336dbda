"""Batches of pictures through the model: chances and nuance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from math import ceil
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError, ResourceError
from training.threads import threads

_UNBOUNDED = 1 << 30
_A_CORE = 4  # images a core takes at a time: of 8, the end of a batch is a longer wait for the last
_ON_GPU = 2  # batches: the second is handed over while the first is fetched


@dataclass(frozen=True)
class EncodedBatch:
    """What the model sees in B images."""

    chances: NDArray[np.float32]  # [B, K], probability of every value
    nuance: NDArray[np.float32]  # [B, N], unit vectors side by side


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Forward:
    """A model as the index uses it, on a device: uint8 images [B, 3, S, S] -> chances and nuance.

    `run` computes on one core where the device is the CPU; each thread that calls it does `settle`
    first. It raises MemoryError for what does not fit. Of a GPU `free` gives back what is unused.
    """

    run: Callable[[NDArray[np.uint8]], EncodedBatch]
    device: str = "cpu"
    settle: Callable[[], None] = _nothing
    free: Callable[[], None] = _nothing

    @property
    def batch_size(self) -> int:
        """Images to hand over at a time: more are no faster on a CPU, fewer are slower on a GPU."""
        return max(32, _A_CORE * threads()) if self.device == "cpu" else 256

    @property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that run it, the same each time."""
        return _pool(threads() if self.device == "cpu" else _ON_GPU, self.settle, os.getpid())


@cache  # by process: threads do not survive a fork
def _pool(count: int, settle: Callable[[], None], process: int) -> ThreadPoolExecutor:
    """Each core takes images of its own: some operations wait for memory and others for arithmetic,
    and cores that are at different places share a machine better than cores in lockstep."""
    pool, ready = ThreadPoolExecutor(count, "encode", settle), threading.Barrier(count)
    list(pool.map(lambda _: ready.wait(), range(count)))  # all of them begin now
    return pool


class Encoding:
    """So many images that were handed over and may still be computed, in consecutive pieces."""

    def __init__(self, images: int, pieces: list[Future[EncodedBatch]]) -> None:
        self.images, self._pieces = images, pieces

    def cancel(self) -> None:
        """Do not begin what has not begun; there is no result then."""
        for piece in self._pieces:
            piece.cancel()

    def settle(self) -> None:
        """Wait until nothing of it is computed any more, whatever became of it."""
        wait(self._pieces)

    def result(self) -> EncodedBatch:
        """Wait for it; raises DataError if the model gave a value that is not finite, MemoryError
        if it did not fit; then nothing of it is computed any more."""
        self.settle()
        parts = [piece.result() for piece in self._pieces]
        chances = np.concatenate([part.chances for part in parts])
        nuance = np.concatenate([part.nuance for part in parts])
        if not (np.isfinite(chances).all() and np.isfinite(nuance).all()):
            raise DataError(
                "the model gives values that are not finite; its checkpoint is broken: train again"
            )
        return EncodedBatch(chances, nuance)


def start_encoding(forward: Forward, pixels: NDArray[np.uint8], a_core: int = _A_CORE) -> Encoding:
    """Begin to encode uint8 images [B, 3, S, S], at most `a_core` on each core or all on a GPU.

    What an image gives may depend in its last bits on those beside it: where bytes are to be the
    same on every machine, `a_core` is none of its number of cores.
    """
    count = a_core if forward.device == "cpu" else len(pixels)
    starts = range(0, len(pixels), count)
    pieces = [forward.pool.submit(forward.run, pixels[i : i + count]) for i in starts]
    return Encoding(len(pixels), pieces)


def encode(forward: Forward, pixels: NDArray[np.uint8]) -> EncodedBatch:
    """Encode uint8 images [B, 3, S, S], by all cores; raises as `Encoding.result`."""
    a_core = min(_A_CORE, ceil(len(pixels) / threads()))
    return start_encoding(forward, pixels, a_core).result()


class BatchEncoder:
    """Encode batches, in smaller pieces, as `say` is told, once one did not fit on the device."""

    def __init__(self, forward: Forward, say: Callable[[str], None]) -> None:
        self._forward, self._say, self._piece = forward, say, _UNBOUNDED
        self._started: WeakSet[Encoding] = WeakSet()

    def start(self, pixels: NDArray[np.uint8]) -> list[Encoding]:
        """Begin to encode uint8 images [B, 3, S, S]; the pieces, in order, for `results`."""
        starts = range(0, len(pixels), self._piece)
        pieces = [start_encoding(self._forward, pixels[i : i + self._piece]) for i in starts]
        self._started.update(pieces)
        return pieces

    def results(
        self, pixels: NDArray[np.uint8], encodings: list[Encoding]
    ) -> Iterator[EncodedBatch]:
        """Wait for what `start` gave for `pixels`; what does not fit is done again, ever less.

        Raises ResourceError if not even one image fits, and DataError as `Encoding.result`.
        """
        done = 0
        for encoding in encodings:
            piece = pixels[done : done + encoding.images]
            done += encoding.images
            try:
                result = encoding.result()
            except MemoryError:
                self._shrink(len(piece))
                yield from self._alone(piece)
            else:
                yield result

    def _alone(self, pixels: NDArray[np.uint8]) -> Iterator[EncodedBatch]:
        """What did not fit beside what else was being encoded, by itself."""
        for encoding in self._started:
            encoding.settle()
        while len(pixels):
            piece = pixels[: self._piece]
            try:
                result = encode(self._forward, piece)
            except MemoryError as error:
                if len(piece) == 1:
                    message = f"out of memory on {self._forward.device} with a single image"
                    raise ResourceError(message) from error
                self._shrink(len(piece))
                continue
            pixels = pixels[len(piece) :]
            yield result

    def _shrink(self, failed: int) -> None:
        """Take less at a time than what has failed, if that is not so already."""
        if 1 <= failed // 2 < self._piece:
            self._piece = failed // 2
            self._say(
                f"out of memory on {self._forward.device}: going on with {self._piece} at a time"
            )
        self._forward.free()
