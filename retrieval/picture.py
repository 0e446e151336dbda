"""A query picture after the model: what a descriptor holds, not yet rounded to bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval.recent import Recent
from training.descriptor import Floats
from training.image_file import read_image_file, shown_path
from training.models.conditioned import ConditionedEmbedder
from training.preprocessing import Preprocessing
from training.to_rgb import to_rgb

_KEPT = 512  # pictures, about 2 KB each
_BATCH = 32  # pictures that go through the model at a time


@dataclass(frozen=True)
class Picture:
    """One encoded picture.

    Args:
        chances: probability of every value, [K] float32.
        nuance: unit vectors side by side, [N] float32.
        digest: SHA-256 of the file; None if it came as pixels.
    """

    chances: Floats
    nuance: Floats
    digest: bytes | None


class Encoder:
    """Encodes pictures, and knows those again that it has met lately. Threads may share it.

    Args:
        model: in inference mode, on `device`.
        preprocessing: of its pictures.
        device: where it runs.
    """

    def __init__(
        self, model: ConditionedEmbedder, preprocessing: Preprocessing, device: str
    ) -> None:
        self._model, self._preprocessing, self._device = model, preprocessing, device
        self._recent: Recent[bytes, Picture] = Recent(_KEPT)

    def __call__(self, images: Sequence[str | Path | Image.Image]) -> list[Picture]:
        """Encode files and RGB pictures of any size.

        Raises:
            DataError: a file cannot be read.
        """
        out: dict[int, Picture] = {}
        waiting: dict[int, tuple[NDArray[np.uint8], bytes | None]] = {}
        for number, image in enumerate(images):
            if isinstance(image, Image.Image):
                waiting[number] = self._preprocessing.fit(to_rgb(image)), None
                continue
            content = read_image_file(Path(image)).content
            digest = hashlib.sha256(content).digest()
            known = self._recent.get(digest)
            if known is not None:
                out[number] = known
            else:
                pixels = self._preprocessing.decode(content, shown_path(Path(image)))
                waiting[number] = pixels, digest
        numbers = list(waiting)
        for start in range(0, len(numbers), _BATCH):
            some = numbers[start : start + _BATCH]
            out |= zip(some, self._encode([waiting[number] for number in some]), strict=True)
        return [out[number] for number in range(len(images))]

    def _encode(self, images: Sequence[tuple[NDArray[np.uint8], bytes | None]]) -> list[Picture]:
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in images])).to(self._device)
        with torch.inference_mode():
            trunk = self._model.trunk(self._preprocessing.normalise(pixels))
            described = self._model.describe(trunk)
            chances = described.chances.float().cpu().numpy()
            nuance = described.nuance.float().cpu().numpy()
        found = [
            Picture(own.copy(), vector.copy(), digest)
            for own, vector, (_, digest) in zip(chances, nuance, images, strict=True)
        ]
        for picture in found:
            if picture.digest is not None:
                self._recent.put(picture.digest, picture)
        return found
