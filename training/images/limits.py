"""What is refused before it is decoded: pixels, memory and work beyond what a picture takes.

Checked on headers and on the list of parts; no Pillow global is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import prod

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from training.images.parts import APPLICATION_1, START_OF_SCAN, Segment, jpeg_segments

BYTE_LIMIT = 256 * 2**20
"""Most bytes of an image file."""

PIXEL_LIMIT = 50_000_000
"""Most pixels of a picture as it is decoded: a 20 KB PNG can claim 169 million. A JPEG may have
more in its file, if it is decoded at a half to an eighth of its size."""

DRAFTED_LIMIT = 5
"""So many times more in its file. Every pixel is still read, at some 100 million a second; cameras
have up to 200 million."""

# Passes over as many pixels as the limit allows; smaller pictures may have more. Encoders make 10.
JPEG_PASSES = 20
JPEG_SEGMENTS = 10_000  # photographs have some 20, with a map of depths some 100
JPEG_EXIF_SEGMENTS = 32  # a picture has one; Pillow joins them in time that grows as the square
JPEG_STRAY = 100_000  # bytes before the first scan in no segment; Pillow reads them one by one
PNG_CHUNKS = 100_000  # 50 million pixels in pieces of 8 KB take 25,000
_MANY_SEGMENTS = f"a JPEG of more than {JPEG_SEGMENTS:,} segments"
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a picture's size
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_PIXEL_BYTES, _COEFFICIENT_BYTES = 4, 2  # of Pillow's RGB; of libjpeg


def draft_scale(size: tuple[int, int], side: int | None, limit_pixels: int) -> int:
    """By which of 1, 2, 4, 8 a JPEG of `size` is decoded smaller, to be fitted into a square of
    `side` pixels; None is for decoding it whole."""
    if side is None:
        return 1
    width, height = size
    scales = [scale for scale in (8, 4, 2) if min(size) >= 2 * side * scale]
    # A remainder shifts the picture against its frame, by more than the scaling costs.
    exact = [scale for scale in scales if width % scale == height % scale == 0]
    if not exact and width * height > limit_pixels:  # better shifted by a pixel than refused
        exact = scales
    return exact[0] if exact else 1


def excessive_work(
    image: Image.Image, content: bytes, limit_pixels: int, scale: int = 1
) -> str | None:
    """Why an image that is open is not to be decoded, at 1 / `scale` of its size, a JPEG: a reason
    or None."""
    width, height = image.size
    whole = width * height
    pixels = f"{width} x {height} is {whole:,} pixels"
    decoded = -(-width // scale) * -(-height // scale)
    if decoded > limit_pixels:
        return f"{pixels}, more than the {limit_pixels:,} that are decoded"
    if whole > DRAFTED_LIMIT * limit_pixels:
        return f"{pixels}, more than the {DRAFTED_LIMIT * limit_pixels:,} that are read"
    if width < 1 or height < 1:
        return pixels
    if image.format == "JPEG":
        if whole > limit_pixels:
            held = _coefficients(content) * _COEFFICIENT_BYTES
            if held > (limit_pixels - decoded) * _PIXEL_BYTES:
                return (
                    f"{pixels} of a progressive JPEG, which takes {held // 10**6:,} MB to decode, "
                    "small or not; saved as a baseline JPEG it is read"
                )
        codes = [segment.code for segment in islice(jpeg_segments(content), JPEG_SEGMENTS + 1)]
        passes = codes.count(START_OF_SCAN)
        if passes * whole > JPEG_PASSES * limit_pixels:
            return f"{passes} passes over {width} x {height} pixels"
        if len(codes) > JPEG_SEGMENTS:
            return _MANY_SEGMENTS
    elif isinstance(image, TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        tile = prod(side if isinstance(side, int) else 0 for side in sides)
        if tile > limit_pixels:
            return f"tiles of {tile:,} pixels, more than the {limit_pixels:,} that are decoded"
    return None


def _coefficients(content: bytes) -> int:
    """How many coefficients libjpeg holds at a time: none of a JPEG of one scan, which it decodes
    row by row, else those of the whole picture, at any scale."""
    frame = None
    for segment in jpeg_segments(content):
        body = content[segment.start + 4 : segment.end]
        if segment.code in _FRAMES and frame is None and len(body) >= 6:
            frame, progressive = body, segment.code in _PROGRESSIVE
        elif segment.code == START_OF_SCAN:
            if frame is None or not (progressive or body[:1] < frame[5:6]):
                return 0
            break
    if frame is None:
        return 0
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    across = [packed >> 4 or 1 for packed in frame[7::3]] or [1]
    down = [packed & 15 or 1 for packed in frame[7::3]] or [1]
    shares = sum(a * d for a, d in zip(across, down, strict=True)) / max(across) / max(down)
    return int(width * height * shares)


def excessive_parts(content: bytes, head: Sequence[Segment]) -> str | None:
    """Why a file, with `head` its `jpeg_head` of up to `JPEG_SEGMENTS` and one more, is not even to
    be opened by Pillow, which walks its parts: a reason or None."""
    if content.startswith(b"\x89PNG"):
        position = 8
        for _ in range(PNG_CHUNKS):
            if position + 8 > len(content):
                return None
            position += 12 + int.from_bytes(content[position : position + 4], "big")
        return f"a PNG of more than {PNG_CHUNKS:,} chunks"
    stray, exif, end = 0, 0, 2
    for code, start, stop in head:
        stray += max(0, start - end)
        exif += code == APPLICATION_1 and content.startswith(b"Exif", start + 4)
        if stray > JPEG_STRAY:
            return f"a JPEG with more than {JPEG_STRAY:,} stray bytes before its first scan"
        if exif > JPEG_EXIF_SEGMENTS:
            return f"a JPEG of more than {JPEG_EXIF_SEGMENTS} EXIF segments"
        end = stop
    return _MANY_SEGMENTS if len(head) > JPEG_SEGMENTS else None
