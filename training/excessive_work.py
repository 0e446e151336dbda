"""Images of an innocent size whose decoding would take minutes or gigabytes all the same.

A progressive JPEG may pass over its pixels any number of times, 75 bytes a pass; a PNG may consist
of millions of empty chunks; a TIFF of one pixel may be stored as a tile of gigabytes.
"""

from __future__ import annotations

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

JPEG_PASSES = 20
"""Passes over as many pixels as the limit allows; smaller pictures may have more. Encoders make 10.
"""

PNG_CHUNKS = 100_000
"""Most chunks of a PNG: 50 million pixels in pieces of 8 KB take 25,000."""

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
        # Inside coded data FF is followed by 00 or a restart mark, so this counts the scans.
        passes = content.count(b"\xff\xda")
        if passes * width * height > JPEG_PASSES * limit_pixels:
            return f"{passes} passes over {width} x {height} pixels"
    elif isinstance(image, TiffImageFile):
        tile = _number(image, _TILE_WIDTH) * _number(image, _TILE_LENGTH)
        if tile > limit_pixels:
            return f"tiles of {tile:,} pixels, more than the {limit_pixels:,} that are decoded"
    return None


def excessive_chunks(content: bytes) -> bool:
    """Whether a file is a PNG of more than `PNG_CHUNKS` chunks; Pillow walks them when it opens."""
    if not content.startswith(b"\x89PNG"):
        return False
    position = 8
    for _ in range(PNG_CHUNKS):
        if position + 8 > len(content):
            return False
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return True


def _number(image: TiffImageFile, tag: int) -> int:
    value = image.tag_v2.get(tag, 0)
    return value if isinstance(value, int) else 0
