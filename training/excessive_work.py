"""Images of an innocent size whose decoding would take minutes or gigabytes all the same.

A progressive JPEG may pass over its pixels any number of times, 75 bytes a pass; a JPEG or a PNG
may consist of millions of empty parts; a TIFF of one pixel may be stored as a tile of gigabytes.
"""

from __future__ import annotations

from itertools import islice

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from training.jpeg_markers import APPLICATION_1, START_OF_SCAN, jpeg_markers

JPEG_PASSES = 20
"""Passes over as many pixels as the limit allows; smaller pictures may have more. Encoders make 10.
"""

JPEG_SEGMENTS = 10_000
"""Most segments of a JPEG: photographs have some 20, with a map of depths some 100."""

JPEG_EXIF_SEGMENTS = 32
"""Most EXIF segments of a JPEG, which has one; Pillow joins them in time that grows as the square.
"""

JPEG_STRAY = 100_000
"""Most bytes before the first scan of a JPEG that are in no segment; Pillow reads them one by one.
"""

PNG_CHUNKS = 100_000
"""Most chunks of a PNG: 50 million pixels in pieces of 8 KB take 25,000."""

_MANY_SEGMENTS = f"a JPEG of more than {JPEG_SEGMENTS:,} segments"
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def excessive_work(image: Image.Image, content: bytes, limit_pixels: int) -> str | None:
    """Why an opened image is not to be decoded.

    Args:
        image: as `Image.open` gives it, nothing decoded yet, its pixels within the limit.
        content: the file's bytes.
        limit_pixels: most pixels of an image.

    Returns:
        The reason, or None.
    """
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        codes = [segment.code for segment in islice(jpeg_markers(content), JPEG_SEGMENTS + 1)]
        passes = codes.count(START_OF_SCAN)
        if passes * width * height > JPEG_PASSES * limit_pixels:
            return f"{passes} passes over {width} x {height} pixels"
        if len(codes) > JPEG_SEGMENTS:
            return _MANY_SEGMENTS
    elif isinstance(image, TiffImageFile):
        tile = _number(image, _TILE_WIDTH) * _number(image, _TILE_LENGTH)
        if tile > limit_pixels:
            return f"tiles of {tile:,} pixels, more than the {limit_pixels:,} that are decoded"
    return None


def excessive_parts(content: bytes) -> str | None:
    """Why a file is not even to be opened by Pillow, which walks its parts then: a reason or None.

    Args:
        content: the file's bytes.
    """
    if content.startswith(b"\x89PNG"):
        return _excessive_chunks(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _excessive_segments(content)
    return None


def _excessive_chunks(content: bytes) -> str | None:
    position = 8
    for _ in range(PNG_CHUNKS):
        if position + 8 > len(content):
            return None
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return f"a PNG of more than {PNG_CHUNKS:,} chunks"


def _excessive_segments(content: bytes) -> str | None:
    stray, exif, end = 0, 0, 2
    for number, segment in enumerate(jpeg_markers(content)):
        stray += max(0, segment.start - end)
        exif += segment.code == APPLICATION_1 and content.startswith(b"Exif", segment.start + 4)
        if stray > JPEG_STRAY:
            return f"a JPEG with more than {JPEG_STRAY:,} stray bytes before its first scan"
        if exif > JPEG_EXIF_SEGMENTS:
            return f"a JPEG of more than {JPEG_EXIF_SEGMENTS} EXIF segments"
        if number > JPEG_SEGMENTS:
            return _MANY_SEGMENTS
        if segment.code == START_OF_SCAN:
            break
        end = segment.end
    return None


def _number(image: TiffImageFile, tag: int) -> int:
    value = image.tag_v2.get(tag, 0)
    return value if isinstance(value, int) else 0
