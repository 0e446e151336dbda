"""Reading pictures that anybody may have made: allow-listed formats, limits, one rule to RGB.

Every reader of the project goes through here, so that training, index and query see the same
pixels. No Pillow global is changed: the limits are checked on the header, before decoding.

The rule to RGB, whatever the mode: the EXIF rotation is applied; of an animation or a multi-page
file the first frame counts; transparency is laid over white; 16-bit grey is divided by 257; float
grey is 0..1 (or 0..255 when any value is above 1); all else is what Pillow converts.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from training.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow's names of the formats that are opened; the content decides, not the file's suffix."""

PIXEL_LIMIT = 50_000_000
"""Most pixels of an image, by its header: a 20 KB PNG can claim 169 million."""

BYTE_LIMIT = 256 * 2**20
"""Most bytes of an image file."""


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file, and what marks this version of it.

    Args:
        content: the file's bytes.
        size: their number.
        mtime_ns: time of last change, nanoseconds since the epoch.
    """

    content: bytes
    size: int
    mtime_ns: int


def read_image_file(path: Path, limit_bytes: int = BYTE_LIMIT) -> ImageFile:
    """Read a regular file.

    Raises:
        DataError: if it is missing, unreadable, not a regular file, empty or too large.
    """
    try:
        # O_NONBLOCK: a named pipe called x.jpg must not hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as handle:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{_shown(path)}: not a regular file")
            if status.st_size > limit_bytes:
                raise DataError(
                    f"{_shown(path)}: {status.st_size:,} bytes, more than the {limit_bytes:,} "
                    "that are read"
                )
            content = handle.read(limit_bytes + 1)
    except OSError as error:
        raise DataError(f"{_shown(path)}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{_shown(path)}: {error}") from error
    if not content:
        raise DataError(f"{_shown(path)}: empty file")
    return ImageFile(content, len(content), status.st_mtime_ns)


def open_rgb(path: Path, limit_pixels: int = PIXEL_LIMIT, draft: int | None = None) -> Image.Image:
    """Read an image file as RGB.

    Args:
        path: the file.
        limit_pixels: most pixels, checked on the header before anything is decoded.
        draft: if given, a JPEG may be decoded at a smaller scale (1/2, 1/4, 1/8) as long as both
            sides keep at least this many pixels; several times faster.

    Returns:
        The decoded picture in mode RGB.

    Raises:
        DataError: with the path and the reason.
    """
    return decode_rgb(read_image_file(path).content, _shown(path), limit_pixels, draft)


def decode_rgb(
    content: bytes,
    name: str,
    limit_pixels: int = PIXEL_LIMIT,
    draft: int | None = None,
) -> Image.Image:
    """Decode the bytes of an image file as RGB; `name` is what an error calls it.

    Args and Returns: as `open_rgb`.

    Raises:
        DataError: with the name and the reason.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limit_pixels:
                raise DataError(
                    f"{name}: {width} x {height} is {width * height:,} pixels, more than the "
                    f"{limit_pixels:,} that are decoded"
                )
            if width < 1 or height < 1:
                raise DataError(f"{name}: no pixels ({width} x {height})")
            if draft is not None:
                image.draft("RGB", (draft, draft))
            image.load()
            return _to_rgb(_upright(image))
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


def _shown(path: Path) -> str:
    """The path with bytes that are not UTF-8 escaped, so that it can be printed anywhere."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # a malformed EXIF block says nothing about the pixels: keep them as they are
        return image
    return image if turned is None else turned


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(np.round(wide / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 1.0 if grey.max() > 1 else 255.0
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
