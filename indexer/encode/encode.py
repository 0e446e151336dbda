"""Batches of pictures through the model: chances and nuance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from math import ceil
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.device import autocast
from training.errors import DataError, ResourceError, UsageError
from training.images.preprocessing import Preprocessing
from training.models.embedder import ConditionedEmbedder, Described, Embedder
from training.models.m2fashion import M2Fashion

_UNBOUNDED = 1 << 30
_A_CORE = 4  # images a core takes at a time: of 8, the end of a batch is a longer wait for the last
_ON_GPU = 2  # batches: the second is handed over while the first is fetched
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class EncodedBatch:
    """What the model sees in B images."""

    chances: NDArray[np.float32]  # [B, K], probability of every value
    nuance: NDArray[np.float32]  # [B, N], unit vectors side by side


Forward = Callable[[Tensor], Described]
"""A model as the index uses it: normalised images [B, 3, S, S] -> chances and nuance."""


def torch_forward(model: Embedder, precision: str = "float32") -> Forward:
    """A model, best in channels-last order, run by torch on the device that the images are on.

    Its backbone computes in `float32` or `bfloat16`. What follows is a few per cent of the work and
    computes in float32, since what is stored comes from it.
    """

    def forward(images: Tensor) -> Described:
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(precision, images.device.type):
            trunk = model.trunk(images)
        return model.describe(trunk.float())

    return forward


def worker_pool(threads: int | None = None) -> ThreadPoolExecutor:
    """A pool in whose threads, by default as many as torch uses in the calling one, torch computes
    on one core; the same one each time.

    Some operations wait for memory and others for arithmetic: cores that are at different places
    share a machine better than cores in lockstep, which all wait where one is lent to a decoder.
    """
    own = torch.get_num_threads()
    threads = threads or own
    with _LOCK:
        key = (os.getpid(), threads)  # threads do not survive a fork
        if key not in _POOLS:
            ready = threading.Barrier(threads)
            pool = ThreadPoolExecutor(threads, "encode", _compute_alone)
            list(pool.map(lambda _: ready.wait(), range(threads)))
            torch.set_num_threads(own)  # what threads to come start with, too
            _POOLS[key] = pool
        return _POOLS[key]


def _compute_alone() -> None:
    torch.get_num_threads()  # else torch sets this thread up later and undoes the next line
    torch.set_num_threads(1)


class Encoding:
    """So many images that were handed over and may still be computed, in consecutive pieces."""

    def __init__(self, images: int, pieces: list[Future[list[Tensor]]]) -> None:
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
        or torch.OutOfMemoryError if it did not fit; then nothing of it is computed any more."""
        self.settle()
        parts = zip(*(piece.result() for piece in self._pieces), strict=True)
        chances, nuance = (check_finite(torch.cat(part)).numpy() for part in parts)
        return EncodedBatch(chances, nuance)


def start_encoding(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> Encoding:
    """Begin to encode uint8 images [B, 3, S, S], a few on each core or all on a GPU."""
    images, count, threads = torch.from_numpy(pixels), len(pixels), _ON_GPU
    if device == "cpu":
        threads = torch.get_num_threads()
        count = min(_A_CORE, ceil(len(images) / threads))
    pool = worker_pool(threads)

    def compute(part: Tensor) -> list[Tensor]:
        try:
            return _parts(forward, preprocessing, part.to(device))
        except RuntimeError as error:
            if "DefaultCPUAllocator" in str(error):  # torch has no exception of its own for it
                raise MemoryError(str(error)) from error
            raise

    pieces = [pool.submit(compute, part) for part in torch.split(images, count)]
    return Encoding(len(images), pieces)


@torch.inference_mode()
def _parts(forward: Forward, preprocessing: Preprocessing, images: Tensor) -> list[Tensor]:
    """Chances and nuance, on the CPU, of uint8 images [B, 3, S, S]."""
    return [part.float().cpu() for part in forward(preprocessing.normalise(images))]


def encode(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> EncodedBatch:
    """Encode uint8 images [B, 3, S, S]; raises as `Encoding.result`."""
    return start_encoding(forward, pixels, preprocessing, device).result()


def check_finite(values: Tensor) -> Tensor:
    """A model's values, of any shape; raises DataError if they hold NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            "the model gives values that are not finite; its checkpoint is broken: train again"
        )
    return values


class BatchEncoder:
    """Encode batches on the device where `forward` takes its images, in smaller pieces, as `say` is
    told, once a batch did not fit on it."""

    def __init__(
        self,
        forward: Forward,
        preprocessing: Preprocessing,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self._forward, self._preprocessing, self._device = forward, preprocessing, device
        self._say, self._piece = say, _UNBOUNDED
        self._started: WeakSet[Encoding] = WeakSet()

    def start(self, pixels: NDArray[np.uint8]) -> list[Encoding]:
        """Begin to encode uint8 images [B, 3, S, S]; the pieces, in order, for `results`."""
        starts = range(0, len(pixels), self._piece)
        pieces = [self._start(pixels[i : i + self._piece]) for i in starts]
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
            except _OUT_OF_MEMORY:
                self._shrink(len(piece))
                yield from self._alone(piece)
            else:
                yield result

    def _start(self, pixels: NDArray[np.uint8]) -> Encoding:
        return start_encoding(self._forward, pixels, self._preprocessing, self._device)

    def _alone(self, pixels: NDArray[np.uint8]) -> Iterator[EncodedBatch]:
        """What did not fit beside what else was being encoded, by itself."""
        for encoding in self._started:
            encoding.settle()
        while len(pixels):
            piece = pixels[: self._piece]
            try:
                result = self._start(piece).result()
            except _OUT_OF_MEMORY as error:
                if len(piece) == 1:
                    message = f"out of memory on {self._device} with a single image"
                    raise ResourceError(message) from error
                self._shrink(len(piece))
                continue
            pixels = pixels[len(piece) :]
            yield result

    def _shrink(self, failed: int) -> None:
        """Take less at a time than what has failed, if that is not so already."""
        if 1 <= failed // 2 < self._piece:
            self._piece = failed // 2
            self._say(f"out of memory on {self._device}: going on with {self._piece} at a time")
        if self._device != "cpu":
            torch.cuda.empty_cache()


def check_indexable(model: Embedder) -> None:
    """Raise UsageError for a rival: what it sees in an image is not read as chances of values."""
    if isinstance(model, ConditionedEmbedder) and not isinstance(model, M2Fashion):
        raise UsageError(
            f"this checkpoint holds the model {model.architecture!r}: `retrieve evaluate` measures "
            "it, but only m2fashion can be indexed; train one with `retrieve train --variant "
            "m2fashion`"
        )
