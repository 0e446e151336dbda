"""One batch of pictures through the model, quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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


def encode(
    model: Embedder, pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: str
) -> EncodedBatch:
    """Encode uint8 images [B, 3, S, S].

    Raises:
        DataError: if the model gives a value that is not finite.
        torch.OutOfMemoryError: if the batch does not fit on the device.
    """
    with torch.inference_mode():
        images = preprocessing.normalise(torch.from_numpy(pixels).to(device))
        maps = model.features(images.contiguous(memory_format=torch.channels_last))
        keys = model.keys(maps)
        predicted = model.predict(maps, keys).float()
        out = EncodedBatch(
            quantise(maps), quantise(keys), predicted.cpu().numpy().astype(np.float16)
        )
    for part in (out.maps.scales, out.keys.scales, out.predicted):
        if not np.isfinite(part).all():
            raise DataError(
                "the model gives values that are not finite; its checkpoint is broken: train again"
            )
    return out


class BatchEncoder:
    """Encode batches, in smaller pieces once a batch did not fit on the device.

    Args:
        model: on `device`, in eval mode.
        preprocessing: the model's.
        device: `cpu`, `cuda` or `cuda:N`.
        say: is told when the pieces become smaller.
    """

    def __init__(
        self,
        model: Embedder,
        preprocessing: Preprocessing,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self._model, self._preprocessing, self._device = model, preprocessing, device
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
                out.append(encode(self._model, piece, self._preprocessing, self._device))
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
