"""Images of an innocent size whose decoding would take minutes or gigabytes all the same.

A progressive JPEG may pass over its pixels any number of times, 75 bytes a pass; a JPEG or a PNG
may consist of millions of empty parts; a TIFF of one pixel may be stored as a tile of gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

# Passes over as many pixels as the limit allows; smaller pictures may have more. Encoders make 10.
JPEG_PASSES = 20
JPEG_SEGMENTS = 10_000  # photographs have some 20, with a map of depths some 100
JPEG_EXIF_SEGMENTS = 32  # a picture has one; Pillow joins them in time that grows as the square
JPEG_STRAY = 100_000  # bytes before the first scan in no segment; Pillow reads them one by one
PNG_CHUNKS = 100_000  # 50 million pixels in pieces of 8 KB take 25,000
_MANY_SEGMENTS = f"a JPEG of more than {JPEG_SEGMENTS:,} segments"
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_END_OF_IMAGE, _START_OF_SCAN, _APPLICATION_1 = 0xD9, 0xDA, 0xE1

# Markers that Pillow takes to be followed by a length and as many bytes.
_SIZED = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})
# In coded data FF is followed by 00 or a restart mark; before any marker FF may be repeated.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def excessive_work(image: Image.Image, content: bytes, limit_pixels: int) -> str | None:
    """Why an image that is open, within the limit, is not to be decoded: a reason or None."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        codes = [segment.code for segment in islice(_jpeg_segments(content), JPEG_SEGMENTS + 1)]
        passes = codes.count(_START_OF_SCAN)
        if passes * width * height > JPEG_PASSES * limit_pixels:
            return f"{passes} passes over {width} x {height} pixels"
        if len(codes) > JPEG_SEGMENTS:
            return _MANY_SEGMENTS
    elif isinstance(image, TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        tile = prod(side if isinstance(side, int) else 0 for side in sides)
        if tile > limit_pixels:
            return f"tiles of {tile:,} pixels, more than the {limit_pixels:,} that are decoded"
    return None


def excessive_parts(content: bytes) -> str | None:
    """Why a file is not even to be opened by Pillow, which walks its parts: a reason or None."""
    if content.startswith(b"\x89PNG"):
        position = 8
        for _ in range(PNG_CHUNKS):
            if position + 8 > len(content):
                return None
            position += 12 + int.from_bytes(content[position : position + 4], "big")
        return f"a PNG of more than {PNG_CHUNKS:,} chunks"
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    stray, exif, end = 0, 0, 2
    for number, segment in enumerate(_jpeg_segments(content)):
        stray += max(0, segment.start - end)
        exif += segment.code == _APPLICATION_1 and content.startswith(b"Exif", segment.start + 4)
        if stray > JPEG_STRAY:
            return f"a JPEG with more than {JPEG_STRAY:,} stray bytes before its first scan"
        if exif > JPEG_EXIF_SEGMENTS:
            return f"a JPEG of more than {JPEG_EXIF_SEGMENTS} EXIF segments"
        if number > JPEG_SEGMENTS:
            return _MANY_SEGMENTS
        if segment.code == _START_OF_SCAN:
            break
        end = segment.end
    return None


class _Segment(NamedTuple):
    """The second byte of a marker, its offset, and that of the end of what it announces."""

    code: int
    start: int
    end: int


def _jpeg_segments(content: bytes) -> Iterator[_Segment]:
    """The segments of the first picture, as Pillow and libjpeg find them: to the first end of an
    image after a scan, for a phone may have appended a film; or to the end of the file."""
    position, scanned = 2, False
    while found := _MARKER.search(content, position):
        position = found.end()
        code = content[position - 1]
        if code in _SIZED:
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
        yield _Segment(code, found.start(), position)
        if code == _END_OF_IMAGE and scanned:
            return
        scanned = scanned or code == _START_OF_SCAN
    yield _Segment(_END_OF_IMAGE, len(content), len(content))
