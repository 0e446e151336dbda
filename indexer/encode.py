"""One batch of pictures through the model, quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.quantise import QuantisedMaps, quantise_tensors
from indexer.worker_pool import worker_pool
from training.errors import DataError, ResourceError
from training.models.embedder import Embedder
from training.preprocessing import Preprocessing

_UNBOUNDED = 1 << 30
_A_CORE = 4  # images a core takes at a time: of 8, the end of a batch is a longer wait for the last
_PATIENCE = 8  # pieces of a size that go well before a larger one is tried; doubled at each failure


@dataclass(frozen=True)
class EncodedBatch:
    """I, P and predictions of B images: maps and keys [B, L, d], predicted [B, K] float16."""

    maps: QuantisedMaps
    keys: QuantisedMaps
    predicted: NDArray[np.float16]


@dataclass(frozen=True)
class ModelOutput:
    """What a model gives for B images under no condition, float.

    Args:
        maps: I [B, d, H, W].
        keys: P [B, d, H, W].
        predicted: probability of every value [B, K].
    """

    maps: Tensor
    keys: Tensor
    predicted: Tensor


Forward = Callable[[Tensor], ModelOutput]
"""The condition-free half of a model: normalised images [B, 3, S, S] -> `ModelOutput`."""


def torch_forward(model: Embedder) -> Forward:
    """A model's condition-free half, run by torch on the device that the images are on."""

    def forward(images: Tensor) -> ModelOutput:
        maps = model.features(images.contiguous(memory_format=torch.channels_last))
        keys = model.keys(maps)
        return ModelOutput(maps, keys, model.predict(maps, keys))

    return forward


class Encoding:
    """A batch that was handed to the device and may still be computed there.

    Args:
        parts: values and scales of I, those of P, and predictions, on their way to main memory.
        ready: has passed once they are there; None if they are.
    """

    def __init__(self, parts: list[Tensor], ready: torch.cuda.Event | None) -> None:
        self._parts, self._ready = parts, ready

    def result(self) -> EncodedBatch:
        """Wait for it.

        Raises:
            DataError: the model gave a value that is not finite.
        """
        if self._ready is not None:
            self._ready.synchronize()
        maps, map_scales, keys, key_scales, predicted = self._parts
        for part in (map_scales, key_scales, predicted):
            check_finite(part)
        return EncodedBatch(
            QuantisedMaps(maps.numpy(), map_scales.numpy()),
            QuantisedMaps(keys.numpy(), key_scales.numpy()),
            predicted.numpy(),
        )


def start_encoding(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> Encoding:
    """Begin to encode uint8 images [B, 3, S, S]; on a GPU nothing is waited for.

    Raises:
        torch.OutOfMemoryError: if the batch does not fit on the device.
    """
    if device == "cpu":
        return Encoding(_by_core(lambda part: _parts(forward, preprocessing, part), pixels), None)
    with torch.inference_mode():
        # From pinned memory a copy does not stop this thread.
        images = torch.from_numpy(pixels).pin_memory().to(device, non_blocking=True)
        parts = _parts(forward, preprocessing, images)
        parts = [part.to("cpu", non_blocking=True) for part in parts]  # into pinned memory
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(torch.cuda.current_stream(device))
        return Encoding(parts, ready)


def _parts(forward: Forward, preprocessing: Preprocessing, images: Tensor) -> list[Tensor]:
    """Values and scales of I, those of P, and predictions, of uint8 images [B, 3, S, S]."""
    given = forward(preprocessing.normalise(images))
    return [*quantise_tensors(given.maps), *quantise_tensors(given.keys), given.predicted.half()]


def _by_core(compute: Callable[[Tensor], list[Tensor]], pixels: NDArray[np.uint8]) -> list[Tensor]:
    """What is computed of images, of a few at a time on each core.

    Cores in lockstep all wait where one of them is lent to a decoding process; cores that work on
    images of their own do not.
    """

    def one(part: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return compute(part)

    images, threads = torch.from_numpy(pixels), torch.get_num_threads()
    if threads == 1 or len(images) <= _A_CORE:
        return one(images)
    found = list(worker_pool(threads).map(one, torch.split(images, _A_CORE)))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


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

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Encoding]:
        """Begin to encode uint8 images [B, 3, S, S]; the pieces, in order.

        Raises:
            ResourceError: if not even one image fits.
        """
        out: list[Encoding] = []
        done = 0
        while done < len(pixels):
            piece = pixels[done : done + self._piece]
            try:
                out.append(start_encoding(self._forward, piece, self._preprocessing, self._device))
            except (torch.OutOfMemoryError, MemoryError) as error:
                if len(piece) == 1:
                    raise ResourceError(
                        f"out of memory on {self._device} with a single image"
                    ) from error
                self._shrink(len(piece) // 2)
                continue
            done += len(piece)
            self._grow(len(piece))
        return out

    def _shrink(self, piece: int) -> None:
        self._piece, self._calm = piece, 0
        self._patience *= 2
        self._say(f"out of memory on {self._device}: going on with {piece} at a time")
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _grow(self, done: int) -> None:
        if done == self._piece:
            self._calm += 1
        if self._calm >= self._patience:
            self._piece, self._calm = self._piece * 2, 0
