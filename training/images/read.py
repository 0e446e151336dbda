"""Reading pictures that anybody may have made: allow-listed formats, limits, one rule to RGB.

Every reader of the project goes through here, so that training, index and query see the same
pixels. No Pillow global is changed: the limits are checked on the header, before decoding.

- The content decides about the format, never the file's name. AVIF and JPEG 2000 are not read: only
  some builds of Pillow do, and a gallery must not have other images on another machine.
- Of an animation, a multi-page TIFF or a stereo picture (GIF, WebP, APNG, TIFF, MPO) the first
  frame counts; of an APNG that is what a plain PNG reader shows. Others are not decoded.
- The EXIF rotation (1..8) is applied; one that is not 1..8, or in a block that cannot be parsed,
  counts as 1.
- What Pillow warns of (odd metadata, mostly) is no error: pixels that it gives are taken.
- Every mode becomes RGB as `to_rgb` says.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from training.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow's names of the formats that are opened."""

# Once for the process, since filters are not of a thread: what it warns of helps no user.
warnings.filterwarnings("ignore", module=r"PIL\.")

PIXEL_LIMIT = 50_000_000
"""Most pixels of an image, by its header: a 20 KB PNG can claim 169 million. Pillow itself draws
the line at 178 million."""

BYTE_LIMIT = 256 * 2**20
"""Most bytes of an image file."""

NO_VERSION = (-1, -1)

_TICK_NS = 100_000_000  # clocks of file systems move in steps of up to some 10 ms

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_rgb(path: Path, draft: int | None = None) -> Image.Image:
    """Read an image file as RGB; raises DataError with the path and the reason.

    `draft` is the side in pixels of the square that the picture will be fitted into. A large JPEG
    is then decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep twice that many pixels
    and are divided without remainder: half the time or less. Fitted pictures of 60 pixels and more
    differ by less than 1 grey level on average, by at most 13 in any pixel.
    """
    return decode_rgb(read_image_file(path).content, shown_path(path), draft=draft)


def decode_rgb(
    content: bytes, name: str, limit_pixels: int = PIXEL_LIMIT, draft: int | None = None
) -> Image.Image:
    """As `open_rgb`, of a file's bytes; `name` is what an error calls it. Raises MemoryError if a
    picture within the limits does not fit."""
    if reason := _excessive_parts(content):
        raise DataError(f"{name}: {reason}")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if reason := _excessive_work(image, content, limit_pixels):
                raise DataError(f"{name}: {reason}")
            if draft is not None:
                _draft(image, draft)
            image.load()
            turn = _TURNS.get(_orientation(image))
            rgb = to_rgb(image)
            return rgb if turn is None else rgb.transpose(turn)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name}: more pixels than the {limit_pixels:,} that are decoded"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's parsers raise almost anything on a malformed file
        raise DataError(f"{name}: broken image: {error or type(error).__name__}") from error


def _draft(image: Image.Image, side: int) -> None:
    width, height = image.size
    for scale in (8, 4, 2):  # by which the decoder of a JPEG may shrink a picture
        # A remainder would shift the picture against its frame, by more than the scaling costs.
        if min(width, height) >= 2 * side * scale and width % scale == height % scale == 0:
            image.draft("RGB", (width // scale, height // scale))  # does nothing but for a JPEG
            return


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a malformed EXIF block says nothing about the pixels: keep them as they are
        return 1
    return value if isinstance(value, int) else 1


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file, and its `file_version`: -1, -1 if it changed so shortly before
    that a further change might bear the same time."""

    content: bytes
    version: tuple[int, int]


def file_version(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time of the last change of status, ns: another version, another pair.

    The time of modification will not do: tools that copy, unpack or restore set it back.
    """
    return status.st_size, status.st_ctime_ns


def shown_path(path: Path) -> str:
    """The path with bytes that are not UTF-8 escaped, so that it can be printed anywhere."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def read_image_file(path: Path, limit_bytes: int = BYTE_LIMIT) -> ImageFile:
    """Read a regular file, or what a link leads to; raises DataError if it is missing, unreadable,
    not a regular file, empty or too large."""
    shown = shown_path(path)
    try:
        # Looked at first: to open a device can have effects of its own.
        _check(os.stat(path), shown, limit_bytes)
        # O_NONBLOCK: a named pipe that has just taken the file's place must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            _check(status, shown, limit_bytes)
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                content = handle.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"{shown}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{shown}: {error}") from error
    if not content:
        raise DataError(f"{shown}: empty file")
    if len(content) > limit_bytes:
        raise DataError(f"{shown}: grew beyond {limit_bytes:,} bytes while it was read")
    fresh = abs(time.time_ns() - status.st_ctime_ns) < _TICK_NS
    return ImageFile(content, NO_VERSION if fresh else file_version(status))


def _check(status: os.stat_result, shown: str, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{shown}: {what}")
    if status.st_size > limit_bytes:
        raise DataError(
            f"{shown}: {status.st_size:,} bytes, more than the {limit_bytes:,} that are read"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB.

    =============================  ================================================================
    mode                           rule
    =============================  ================================================================
    RGB, RGBX                      as it is; the fourth byte of RGBX is padding
    RGBA, RGBa, LA, La, PA         laid over white; a fully transparent picture is white
    P                              its palette; transparent entries are laid over white
    1, L                           the grey in all three channels; 1 is black and white
    1, L, I, I;16, RGB with a      the colour that is declared transparent becomes white
    transparent colour
    I;16 and its byte orders       0..65535 divided by 257 and rounded: the full range, not the
                                   picture's own
    I                              clipped to 0..65535, then as I;16
    F                              0..1, or 0..255 if any value is above 1; clipped; not finite is 0
    CMYK                           Pillow's plain conversion (255 - C) (255 - K) / 255; the inverted
                                   CMYK of Adobe's JPEGs is turned round when it is decoded
    YCbCr, HSV                     Pillow's conversion (JFIF; hue 0..255)
    LAB                            to sRGB through littleCMS, D50
    =============================  ================================================================

    Colour profiles are not applied: photographs of shops are sRGB or meant to be, and a result that
    depends on whether a profile survived the last upload would be worse. Raises ValueError if
    Pillow cannot convert the mode (none of those above).
    """
    if image.mode.startswith("I"):
        return _from_wide(image)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 1.0 if grey.max() > 1 else 255.0
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow goes no further in one step
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer)  # the pixels of alpha_composite in a third of its memory
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.int32)
    transparent = image.info.get("transparency")
    white = wide == transparent if isinstance(transparent, int) else None
    np.clip(wide, 0, 65535, out=wide)
    wide += 128  # round(x / 257); 257 is odd, so that no tie arises
    wide //= 257
    grey = wide.astype(np.uint8)
    if white is not None:
        grey[white] = 255
    return Image.fromarray(grey).convert("RGB")


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


def _excessive_work(image: Image.Image, content: bytes, limit_pixels: int) -> str | None:
    """Why an image that is open is not to be decoded: a reason or None."""
    width, height = image.size
    pixels = f"{width} x {height} is {width * height:,} pixels"
    if width * height > limit_pixels:
        return f"{pixels}, more than the {limit_pixels:,} that are decoded"
    if width < 1 or height < 1:
        return pixels
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


def _excessive_parts(content: bytes) -> str | None:
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
