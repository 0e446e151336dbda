"""One batch of pictures through the model, quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.quantise import QuantisedMaps, quantise
from training.errors import DataError, ResourceError
from training.models.embedder import Embedder
from training.preprocessing import Preprocessing


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


def encode(
    forward: Forward, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> EncodedBatch:
    """Encode uint8 images [B, 3, S, S].

    Raises:
        DataError: if the model gives a value that is not finite.
        torch.OutOfMemoryError: if the batch does not fit on the device.
    """
    with torch.inference_mode():
        images = preprocessing.normalise(torch.from_numpy(pixels).to(device))
        given = forward(images)
        predicted = given.predicted.float().cpu().numpy().astype(np.float16)
        out = EncodedBatch(quantise(given.maps), quantise(given.keys), predicted)
    for part in (out.maps.scales, out.keys.scales, out.predicted):
        check_finite(torch.from_numpy(part))
    return out


def check_finite(values: Tensor) -> None:
    """Raise DataError if a model's values, of any shape, hold NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            "the model gives values that are not finite; its checkpoint is broken: train again"
        )


class BatchEncoder:
    """Encode batches, in smaller pieces once a batch did not fit on the device.

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
        self._say, self._piece = say, 1 << 30

    def __call__(self, pixels: NDArray[np.uint8]) -> list[EncodedBatch]:
        """Encode uint8 images [B, 3, S, S]; the pieces, in order.

        Raises:
            ResourceError: if not even one image fits.
            DataError: as `encode`.
        """
        out: list[EncodedBatch] = []
        done = 0
        while done < len(pixels):
            piece = pixels[done : done + self._piece]
            try:
                out.append(encode(self._forward, piece, self._preprocessing, self._device))
            except (torch.OutOfMemoryError, MemoryError) as error:
                if len(piece) == 1:
                    raise ResourceError(
                        f"out of memory on {self._device} with a single image"
                    ) from error
                self._piece = len(piece) // 2
                self._say(f"out of memory on {self._device}: going on with {self._piece} at a time")
                if self._device != "cpu":
                    torch.cuda.empty_cache()
                continue
            done += len(piece)
        return out
