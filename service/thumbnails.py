"""Small JPEGs made anew of pictures: an original, with whatever its metadata tells, is never given
out."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from training.images.read import PictureSource, open_picture

SIDES = (160, 320, 640)
"""Pixels of the longer side that can be asked for."""

KEPT_BYTES = 64 * 2**20


def thumbnail(source: PictureSource, side: int) -> bytes:
    """JPEG of a picture, its longer side at most `side` pixels; raises as `open_picture`."""
    picture = open_picture(source, draft=side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return jpeg(picture)


def jpeg(picture: Image.Image) -> bytes:
    """An RGB picture as JPEG."""
    out = io.BytesIO()
    bare = Image.new("RGB", picture.size)  # without `info`, which holds profile and EXIF
    bare.paste(picture)
    bare.save(out, "JPEG", quality=82)
    return out.getvalue()


class Kept:
    """Bytes by key, those that were used last: at most `most` bytes. Threads may share it."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most, self._size, self._lock = most, 0, Lock()
        self._of: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        """What is kept of a key."""
        with self._lock:
            if key in self._of:
                self._of.move_to_end(key)
            return self._of.get(key)

    def made(self, key: object, make: Callable[[], bytes]) -> bytes:
        """What is kept, or made now."""
        found = self.get(key)
        if found is None:
            found = make()
            with self._lock:
                self._size += len(found) - len(self._of.pop(key, b""))
                self._of[key] = found
                while self._size > self._most:
                    self._size -= len(self._of.popitem(last=False)[1])
        return found
