"""One batch of pictures through the model: chances and nuance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from math import ceil
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.worker_pool import worker_pool
from training.errors import DataError, ResourceError
from training.models.conditioned import Embedder
from training.preprocessing import Preprocessing

_UNBOUNDED = 1 << 30
_A_CORE = 4  # images a core takes at a time: of 8, the end of a batch is a longer wait for the last
_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
_PATIENCE = 8  # pieces of a size that go well before a larger one is tried; doubled at each failure


@dataclass(frozen=True)
class EncodedBatch:
    """What the model sees in B images.

    Args:
        chances: probability of every value [B, K] float32.
        nuance: unit vectors side by side [B, N] float32.
    """

    chances: NDArray[np.float32]
    nuance: NDArray[np.float32]


@dataclass(frozen=True)
class ModelOutput:
    """What a model gives for B images.

    Args:
        chances: probability of every value [B, K] float.
        nuance: unit vectors side by side [B, N] float.
    """

    chances: Tensor
    nuance: Tensor


Forward = Callable[[Tensor], ModelOutput]
"""A model as the index uses it: normalised images [B, 3, S, S] -> `ModelOutput`."""


def output_of(model: Embedder, trunk: Tensor) -> ModelOutput:
    """What follows from F, the backbone's output [B, channels, H, W]."""
    described = model.describe(trunk)
    return ModelOutput(described.chances, described.nuance)


def torch_forward(model: Embedder) -> Forward:
    """A model run by torch on the device that the images are on."""

    def forward(images: Tensor) -> ModelOutput:
        images = images.contiguous(memory_format=torch.channels_last)
        return output_of(model, model.trunk(images))

    return forward


class Encoding(ABC):
    """A batch that was handed over and may still be computed.

    Args:
        images: how many it holds.
    """

    def __init__(self, images: int) -> None:
        self.images = images

    def result(self) -> EncodedBatch:
        """Wait for it.

        Raises:
            DataError: the model gave a value that is not finite.
            MemoryError: the batch did not fit; nothing of it is computed any more.
        """
        chances, nuance = self._parts()
        for part in (chances, nuance):
            check_finite(part)
        return EncodedBatch(chances.numpy(), nuance.numpy())

    @abstractmethod
    def cancel(self) -> None:
        """Do not begin what has not begun; there is no result then."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until nothing of it is computed any more, whatever became of it."""

    @abstractmethod
    def _parts(self) -> list[Tensor]:
        """Chances and nuance in main memory, once there."""


class _OnGpu(Encoding):
    """Tensors on their way to main memory, there once `ready` has passed."""

    def __init__(self, parts: list[Tensor], ready: torch.cuda.Event) -> None:
        super().__init__(len(parts[0]))
        self._tensors, self._ready = parts, ready

    def cancel(self) -> None:
        pass  # all of it has begun

    def settle(self) -> None:
        self._ready.synchronize()

    def _parts(self) -> list[Tensor]:
        self._ready.synchronize()
        return self._tensors


class _OnCores(Encoding):
    """A few images at a time on each core.

    Cores in lockstep all wait where one of them is lent to a decoding process; cores that work on
    images of their own do not, and go on with the next batch where this one leaves them idle.
    """

    def __init__(self, compute: Callable[[Tensor], list[Tensor]], images: Tensor) -> None:
        super().__init__(len(images))
        cores = torch.get_num_threads()
        count = max(1, min(_A_CORE, ceil(len(images) / cores)))
        pool = worker_pool(cores)
        self._pieces = [pool.submit(compute, part) for part in torch.split(images, count)]

    def cancel(self) -> None:
        for piece in self._pieces:
            piece.cancel()

    def settle(self) -> None:
        wait(self._pieces)

    def _parts(self) -> list[Tensor]:
        wait(self._pieces)  # for all, also if one fails: their memory is free then
        pieces = [piece.result() for piece in self._pieces]
        return [torch.cat(parts) for parts in zip(*pieces, strict=True)]


def start_encoding(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> Encoding:
    """Begin to encode uint8 images [B, 3, S, S]; nothing is waited for.

    Raises:
        torch.OutOfMemoryError: if the batch does not fit on a GPU.
    """
    if device == "cpu":

        def compute(part: Tensor) -> list[Tensor]:
            try:
                with torch.inference_mode():
                    return _parts(forward, preprocessing, part)
            except RuntimeError as error:
                if "DefaultCPUAllocator" in str(error):  # torch has no exception of its own for it
                    raise MemoryError(str(error)) from error
                raise

        return _OnCores(compute, torch.from_numpy(pixels))
    with torch.inference_mode():
        # From pinned memory a copy does not stop this thread.
        images = torch.from_numpy(pixels).pin_memory().to(device, non_blocking=True)
        parts = _parts(forward, preprocessing, images)
        parts = [part.to("cpu", non_blocking=True) for part in parts]  # into pinned memory
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(torch.cuda.current_stream(device))
        return _OnGpu(parts, ready)


def _parts(forward: Forward, preprocessing: Preprocessing, images: Tensor) -> list[Tensor]:
    """Chances and nuance of uint8 images [B, 3, S, S]."""
    given = forward(preprocessing.normalise(images))
    return [given.chances.float(), given.nuance.float()]


def encode(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> EncodedBatch:
    """Encode uint8 images [B, 3, S, S]; raises as `start_encoding` and `Encoding.result`."""
    return start_encoding(forward, pixels, preprocessing, device).result()


def check_finite(values: Tensor) -> None:
    """Raise DataError if a model's values, of any shape, hold NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            "the model gives values that are not finite; its checkpoint is broken: train again"
        )


class BatchEncoder:
    """Encode batches, in smaller pieces once a batch did not fit on the device.

    Pieces grow back after a while: what filled the memory may have been another process. Each
    time that they turn out too large again the while is doubled.

    Args:
        forward: the model, from `torch_forward` or `onnx_forward`.
        preprocessing: the model's.
        device: `cpu`, `cuda` or `cuda:N`, where `forward` takes its images.
        say: is told when the pieces become smaller.
    """

    def __init__(
        self,
        forward: Forward,
        preprocessing: Preprocessing,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self._forward, self._preprocessing, self._device = forward, preprocessing, device
        self._say, self._piece = say, _UNBOUNDED
        self._patience, self._calm = _PATIENCE, 0
        self._started: WeakSet[Encoding] = WeakSet()

    def start(self, pixels: NDArray[np.uint8]) -> list[Encoding]:
        """Begin to encode uint8 images [B, 3, S, S]; the pieces, in order, for `results`.

        Raises:
            ResourceError: if not even one image fits.
        """
        out: list[Encoding] = []
        done = 0
        while done < len(pixels):
            piece = pixels[done : done + self._piece]
            try:
                started = start_encoding(self._forward, piece, self._preprocessing, self._device)
            except _OUT_OF_MEMORY as error:
                self._shrink(len(piece), error)
                continue
            out.append(started)
            self._started.add(started)
            done += len(piece)
            self._grow(len(piece))
        return out

    def results(
        self, pixels: NDArray[np.uint8], encodings: list[Encoding]
    ) -> Iterator[EncodedBatch]:
        """Wait for what was started; what turns out not to fit is done again in smaller pieces.

        Args:
            pixels: what `start` was given.
            encodings: what it gave.

        Raises:
            ResourceError: if not even one image fits.
            DataError: as `Encoding.result`.
        """
        done = 0
        for encoding in encodings:
            piece = pixels[done : done + encoding.images]
            done += len(piece)
            try:
                result = encoding.result()
            except _OUT_OF_MEMORY as error:
                if len(piece) > 1:
                    self._shrink(len(piece), error)
                    yield from self.results(piece, self.start(piece))
                    continue
                result = self._alone(piece)
            yield result

    def _alone(self, image: NDArray[np.uint8]) -> EncodedBatch:
        """One image [1, 3, S, S] that did not fit beside what else was being encoded."""
        for encoding in self._started:
            encoding.settle()
        try:
            return encode(self._forward, image, self._preprocessing, self._device)
        except _OUT_OF_MEMORY as error:
            raise self._hopeless() from error

    def _shrink(self, failed: int, error: Exception) -> None:
        """Take less at a time than what has failed, if that is not so already."""
        if failed == 1:
            raise self._hopeless() from error
        piece = failed // 2
        if piece < self._piece:
            self._piece, self._calm = piece, 0
            self._patience *= 2
            self._say(f"out of memory on {self._device}: going on with {piece} at a time")
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _hopeless(self) -> ResourceError:
        return ResourceError(f"out of memory on {self._device} with a single image")

    def _grow(self, done: int) -> None:
        if done == self._piece:
            self._calm += 1
        if self._calm >= self._patience:
            self._piece, self._calm = self._piece * 2, 0
