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
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from training.errors import DataError
from training.excessive_work import excessive_parts, excessive_work
from training.image_file import read_image_file, shown_path
from training.to_rgb import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow's names of the formats that are opened."""

# Once for the process, since filters are not of a thread: what it warns of helps no user.
warnings.filterwarnings("ignore", module=r"PIL\.")

PIXEL_LIMIT = 50_000_000
"""Most pixels of an image, by its header: a 20 KB PNG can claim 169 million."""

DRAFT_SCALES = (8, 4, 2)
"""By how much the decoder of a JPEG may shrink a picture."""

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


def open_rgb(path: Path, limit_pixels: int = PIXEL_LIMIT, draft: int | None = None) -> Image.Image:
    """Read an image file as RGB.

    Args:
        path: the file.
        limit_pixels: most pixels, checked on the header before anything is decoded; Pillow itself
            draws the line at 178 million.
        draft: side in pixels of the square that the picture will be fitted into. A large JPEG is
            then decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep twice that many
            pixels and are divided without remainder: half the time or less. Fitted pictures of 60
            pixels and more differ by less than 1 grey level on average, by at most 13 in any pixel.

    Raises:
        DataError: with the path and the reason.
    """
    return decode_rgb(read_image_file(path).content, shown_path(path), limit_pixels, draft)


def decode_rgb(
    content: bytes,
    name: str,
    limit_pixels: int = PIXEL_LIMIT,
    draft: int | None = None,
) -> Image.Image:
    """As `open_rgb`, of a file's bytes; `name` is what an error calls it.

    Raises:
        DataError: with the name and the reason.
        MemoryError: if a picture within the limits does not fit.
    """
    if reason := excessive_parts(content):
        raise DataError(f"{name}: {reason}")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image, name, limit_pixels)
            if reason := excessive_work(image, content, limit_pixels):
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


def _check_size(image: Image.Image, name: str, limit_pixels: int) -> None:
    width, height = image.size
    pixels = f"{name}: {width} x {height} is {width * height:,} pixels"
    if width * height > limit_pixels:
        raise DataError(f"{pixels}, more than the {limit_pixels:,} that are decoded")
    if width < 1 or height < 1:
        raise DataError(pixels)


def _draft(image: Image.Image, side: int) -> None:
    width, height = image.size
    for scale in DRAFT_SCALES:
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
