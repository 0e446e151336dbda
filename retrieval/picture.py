"""A query picture after the model: what a descriptor holds, not yet rounded to bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexer.encode.encode import Forward, encode
from training.descriptor import Floats
from training.images.preprocessing import Preprocessing
from training.images.read import PictureSource, content_of, picture_name

_KEPT = 512  # pictures, about 2 KB each
_BATCH = 32  # pictures that go through the model at a time


@dataclass(frozen=True)
class Picture:
    """One encoded picture: probability of every value [K] and unit vectors side by side [N],
    float32; SHA-256 of the file, None if it came as pixels."""

    chances: Floats
    nuance: Floats
    digest: bytes | None


class Encoder:
    """Encodes pictures, and knows those again that it has met lately. Threads may share it."""

    def __init__(self, forward: Forward, preprocessing: Preprocessing) -> None:
        self._forward, self._preprocessing = forward, preprocessing
        self._recent: dict[bytes, Picture] = {}
        self._lock = Lock()

    def __call__(self, images: Sequence[PictureSource]) -> list[Picture]:
        """Encode pictures of any size; raises as `open_picture`."""
        out: dict[int, Picture] = {}
        waiting: list[tuple[int, NDArray[np.uint8], bytes | None]] = []
        for number, image in enumerate(images):
            content = content_of(image)
            if content is None:
                waiting.append((number, self._preprocessing.open(image), None))
                continue
            digest = hashlib.sha256(content).digest()
            known = self._recent.get(digest)
            if known is not None:
                out[number] = known
            else:
                pixels = self._preprocessing.decode(content, picture_name(image))
                waiting.append((number, pixels, digest))
        for start in range(0, len(waiting), _BATCH):
            numbers, arrays, digests = zip(*waiting[start : start + _BATCH], strict=True)
            out |= zip(numbers, self._encode(np.stack(arrays), digests), strict=True)
        return [out[number] for number in range(len(images))]

    def _encode(
        self, pixels: NDArray[np.uint8], digests: Sequence[bytes | None]
    ) -> Iterator[Picture]:
        found = encode(self._forward, pixels)
        for own, vector, digest in zip(found.chances, found.nuance, digests, strict=True):
            picture = Picture(own.copy(), vector.copy(), digest)
            if digest is not None:
                with self._lock:
                    self._recent[digest] = picture
                    if len(self._recent) > _KEPT:
                        del self._recent[next(iter(self._recent))]
            yield picture
