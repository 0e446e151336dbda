"""A query picture after the model: what a descriptor holds, not yet rounded to bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.encode.encode import Forward, encode
from training.descriptor import Bytes, DescriptorLayout, Floats
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


class Stored(Protocol):
    """What stores descriptors [n, width] of rows [n]."""

    layout: DescriptorLayout

    def descriptors_of(self, rows: NDArray[np.int64], /) -> Bytes: ...  # noqa: D102


def stored_pictures(store: Stored, rows: NDArray[np.int64]) -> list[Picture]:
    """Images of a gallery [n] as encoded pictures, from their descriptors; without digests, so that
    they find themselves."""
    descriptors, layout = store.descriptors_of(rows), store.layout
    parts = zip(layout.chances(descriptors), layout.nuance_of(descriptors), strict=True)
    return [Picture(chances, nuance, None) for chances, nuance in parts]


class Encoder:
    """Encodes pictures, and knows those again that it has met lately. Threads may share it."""

    def __init__(self, forward: Forward, preprocessing: Preprocessing) -> None:
        self._forward, self._preprocessing = forward, preprocessing
        self._recent: dict[bytes, Picture] = {}
        self._lock = Lock()

    def __call__(self, images: Sequence[PictureSource]) -> list[Picture]:
        """Encode pictures of any size; raises as `open_picture`."""
        known: dict[bytes | int, Picture] = {}  # by digest, else by number
        waiting: dict[bytes | int, NDArray[np.uint8]] = {}
        keys: list[bytes | int] = []
        for number, image in enumerate(images):
            content = content_of(image)
            if content is None:
                keys.append(number)
                waiting[number] = self._preprocessing.open(image)
                continue
            digest = hashlib.sha256(content).digest()
            keys.append(digest)
            met = self._recent.get(digest)
            if met is not None:
                known[digest] = met
            elif digest not in waiting:
                waiting[digest] = self._preprocessing.decode(content, picture_name(image))
        todo = list(waiting)
        for start in range(0, len(todo), _BATCH):
            some = todo[start : start + _BATCH]
            found = encode(self._forward, np.stack([waiting[key] for key in some]))
            for key, own, vector in zip(some, found.chances, found.nuance, strict=True):
                of_file = key if isinstance(key, bytes) else None
                known[key] = self._kept(Picture(own.copy(), vector.copy(), of_file))
        return [known[key] for key in keys]

    def _kept(self, picture: Picture) -> Picture:
        if picture.digest is not None:
            with self._lock:
                self._recent[picture.digest] = picture
                if len(self._recent) > _KEPT:
                    del self._recent[next(iter(self._recent))]
        return picture
