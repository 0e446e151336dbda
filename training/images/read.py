"""Reading pictures that anybody may have made, by every door: allow-listed formats, limits, one
rule to upright sRGB.

Every reader of the project goes through here, so that training, index and query see the same
pixels, whether a picture comes as a path, as bytes, as an open file, by Pillow or as an array. No
Pillow global is changed: the limits are checked on the header, before decoding.

- The content decides about the format, never the file's name. AVIF is read where Pillow has it
  (11.3 and newer), HEIC where pillow-heif is installed; without, the error says so.
- Of an animation, a multi-page TIFF or a stereo picture (GIF, WebP, APNG, TIFF, MPO) the first
  frame counts; of an APNG that is what a plain PNG reader shows. Others are not decoded.
- The EXIF rotation (1..8) is applied; one that is not 1..8, or in a block that cannot be parsed,
  counts as 1. A rotation that XMP alone tells does not count, as in browsers.
- Odd metadata is no error: pixels that are sound are taken.
- Every mode and every colour profile becomes sRGB as `to_rgb` says.
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from PIL.ImageFile import ImageFile as PillowFile
from PIL.JpegImagePlugin import JpegImageFile

from training.errors import DataError, UsageError
from training.images.colour import adobe_rgb, in_srgb, png_profile
from training.images.limits import (
    BYTE_LIMIT,
    JPEG_SEGMENTS,
    PIXEL_LIMIT,
    draft_scale,
    excessive_parts,
    excessive_work,
)
from training.images.parts import jpeg_head, needed_parts

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIC")
"""The formats that are read, the last two where the machine can."""

# Once for the process, since filters are not of a thread: what it warns of helps no user.
warnings.filterwarnings("ignore", module=r"PIL\.")

NO_VERSION = (-1, -1)

_TICK_NS = 100_000_000  # clocks of file systems move in steps of up to some 10 ms

_ORIENTATION, _INTEROPERABILITY = 0x0112, 0xA005
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_URL = re.compile(
    r"\s*(?:(?:https?|ftps?|s3|gs):/|[a-z][a-z0-9+.-]+://|data:[^,]*,)", re.IGNORECASE
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_KINDS = "a path, the bytes of a file, an open binary file, a PIL picture, or an array of pixels"


@runtime_checkable
class BinaryFile(Protocol):
    """What gives bytes: an open file, an upload, `io.BytesIO`."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes more; none at the end."""
        ...


PictureSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryFile
    | Image.Image
    | NDArray[np.generic]
)
"""A picture by any door. An array is [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey; uint8, or floats
0..1."""


def open_picture(source: PictureSource, draft: int | None = None) -> Image.Image:
    """Read a picture as upright RGB, in sRGB; raises DataError with its name and the reason, and
    UsageError for what is none of a `PictureSource`.

    `draft` is the side in pixels of the square that the picture will be fitted into. A large JPEG
    is then decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep twice that many pixels
    and are divided without remainder: half the time or less, and next to no memory, so that the
    limits are of what is decoded; one beyond them is divided with a remainder, too. Fitted pictures
    of 60 pixels and more differ by less than 1 grey level on average, by at most 13 in any pixel.
    """
    name = picture_name(source)
    content = content_of(source)
    if content is not None:
        return decode_rgb(content, name, draft=draft)
    with _in_words(name, PIXEL_LIMIT):
        image = _of_array(source, name) if isinstance(source, np.ndarray) else source
        assert isinstance(image, Image.Image)  # all else has content
        if reason := excessive_work(image, b"", PIXEL_LIMIT):
            raise DataError(f"{name}: {reason}")
        return _upright(image)


def content_of(source: PictureSource) -> bytes | None:
    """The bytes of the file that a picture is in; None if there are only pixels.

    An open file is read from its start, where it has one. A PIL picture that was opened but not
    decoded counts as its file. Raises DataError as `read_image_file` does, and for a URL;
    UsageError for what is none of a `PictureSource`.
    """
    name = picture_name(source)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        if is_url(path):
            raise DataError(
                f"{name}: a URL; nothing is fetched from the web: download the picture first, and "
                "give its path or its bytes"
            )
        return read_image_file(Path(path)).content
    file = _undecoded(source) if isinstance(source, Image.Image) else source
    if isinstance(file, np.ndarray) or (file is None and source is not None):
        return None
    if isinstance(file, bytes | bytearray | memoryview):
        content = bytes(file)
    elif isinstance(file, BinaryFile):
        content = _read(file, name)
    else:
        raise UsageError(f"a {type(source).__name__} is no picture: give {_KINDS}")
    if not content:
        raise DataError(f"{name}: no bytes")
    if len(content) > BYTE_LIMIT:
        raise DataError(f"{name}: more than the {BYTE_LIMIT:,} bytes that are read")
    return content


def is_url(text: str) -> bool:
    """Whether a text is an address in the web, or `data:`, rather than a path; none is fetched."""
    return _URL.match(text) is not None


def picture_name(source: PictureSource) -> str:
    """What an error calls a picture: its path or, without one, `the picture`."""
    if isinstance(source, str | os.PathLike):
        named: object = os.fsdecode(source)
    else:
        named = getattr(source, "filename", None) or getattr(source, "name", None)
    return shown_path(Path(named)) if isinstance(named, str) and named else "the picture"


def _undecoded(image: Image.Image) -> BinaryFile | None:
    """The file of a picture of which Pillow has only read the header, if it is of our formats."""
    if not isinstance(image, PillowFile) or image.format not in (*FORMATS, "MPO"):
        return None
    return image.fp if image.tile and image.fp is not None and image.tell() == 0 else None


def _read(file: BinaryFile, name: str) -> bytes:
    """All bytes of a file, from its start where it can go there; it is left where it stood."""
    kept, size, position = [], 0, None
    try:
        with suppress(AttributeError, io.UnsupportedOperation):
            position = file.tell()  # type: ignore[attr-defined]
            file.seek(0)  # type: ignore[attr-defined]
        while part := file.read(BYTE_LIMIT + 1 - size):
            if not isinstance(part, bytes):
                if isinstance(part, Coroutine):
                    part.close()
                raise UsageError(
                    f"{name}: read() gives {type(part).__name__}, not bytes: give {_KINDS}"
                )
            kept.append(part)
            size += len(part)
        if position is not None:
            file.seek(position)  # type: ignore[attr-defined]
    except UsageError:
        raise
    except Exception as error:  # closed, cut off, or whatever another's file may raise
        raise DataError(f"{name}: cannot be read: {error or type(error).__name__}") from error
    return b"".join(kept)


def _of_array(array: NDArray[np.generic], name: str) -> Image.Image:
    shape, kind = array.shape, array.dtype
    what = f"{name}: an array of {kind} {list(shape)}"
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))):
        raise UsageError(f"{what}: pixels are [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey")
    if kind != np.uint8 and kind.kind != "f":
        raise UsageError(f"{what}: pixels are uint8, or floats from 0 to 1")
    if array.size == 0 or shape[0] * shape[1] > PIXEL_LIMIT:
        count = shape[0] * shape[1]
        raise DataError(f"{what}: {count:,} pixels, not 1 to the {PIXEL_LIMIT:,} that are taken")
    if kind != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(f"{what}: floats must be from 0 to 1, got {array.min()}..{array.max()}")
        array = np.round(array.astype(np.float32) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


@contextmanager
def _in_words(name: str, limit_pixels: int) -> Iterator[None]:
    """What Pillow raises in the block, as DataError; MemoryError stays."""
    try:
        yield
    except (DataError, UsageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name}: more pixels than the {limit_pixels:,} that are decoded"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's parsers raise almost anything on a malformed file
        raise DataError(f"{name}: broken image: {error or type(error).__name__}") from error


def decode_rgb(
    content: bytes, name: str, limit_pixels: int = PIXEL_LIMIT, draft: int | None = None
) -> Image.Image:
    """As `open_picture`, of a file's bytes; `name` is what an error calls it. Raises MemoryError if
    a picture within the limits does not fit."""
    head = jpeg_head(content, JPEG_SEGMENTS + 1)
    if reason := excessive_parts(content, head):
        raise DataError(f"{name}: {reason}")
    with _in_words(name, limit_pixels):
        told = needed_parts(content, head)
        try:
            return _decoded(told, name, limit_pixels, draft)
        except (DataError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:
            bare = needed_parts(content, head, bare=True)
            if bare == told:
                raise
            with suppress(Exception):  # the first error says more
                return _decoded(bare, name, limit_pixels, draft)
            raise


def _decoded(content: bytes, name: str, limit_pixels: int, draft: int | None) -> Image.Image:
    with _opened(content, name) as image:
        scale = 1
        if isinstance(image, JpegImageFile):
            scale = draft_scale(image.size, draft, limit_pixels)
        if reason := excessive_work(image, content, limit_pixels, scale):
            raise DataError(f"{name}: {reason}")
        if scale > 1:
            image.draft("RGB", (image.width // scale, image.height // scale))
        return _upright(image)


def _opened(content: bytes, name: str) -> Image.Image:
    """The picture with its header read, by the format that the content has."""
    file = io.BytesIO(content)
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file)  # `Image.open` has a limit on pixels that are not decoded
    formats: tuple[str, ...] = FORMATS[:-2]
    if content[4:8] == b"ftyp":
        length = int.from_bytes(content[:4], "big")
        brands = {content[at : at + 4] for at in range(8, min(length, 1024), 4)}
        if not brands.isdisjoint({b"avif", b"avis"}):
            if not ("avif" in features.modules and features.check("avif")):
                raise DataError(f"{name}: AVIF, which this Pillow does not read; 11.3 and newer do")
            formats = ("AVIF",)
        elif not brands.isdisjoint(_HEIC_BRANDS):
            return _opened_heic(file, name)
    return Image.open(file, formats=formats)


def _opened_heic(file: io.BytesIO, name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise DataError(
            f'{name}: HEIC, which needs pip install "m2fashion-retrieval[heic]"'
        ) from error
    return cast(Image.Image, HeifImageFile(file))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class ImageFile:
    """The bytes of an image file, and its `file_version`: -1, -1 if it changed so shortly before
    that a further change might bear the same time."""

    content: bytes
    version: tuple[int, int]


def version_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The `file_version` of a file as it is now; -1, -1 if there is none."""
    try:
        return file_version(os.stat(path))
    except (OSError, ValueError):  # the latter: a NUL in the name
        return NO_VERSION


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


def _upright(image: Image.Image) -> Image.Image:
    """Decode what is not yet decoded, to RGB, and turn it. A PIL picture itself stays as it is."""
    image.load()
    turn = None
    if "exif" in image.info:
        # What is malformed says nothing about the pixels: they stay as they are.
        with suppress(Exception):
            turn = _TURNS.get(_exif(image).get(_ORIENTATION, 1))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _exif(image: Image.Image) -> Image.Exif:
    exif = Image.Exif()  # not `getexif`, which looks into XMP and into a PNG's texts as well
    exif.load(image.info["exif"])
    return exif


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB, in sRGB.

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
    CMYK                           by its profile; without, (255 - C) (255 - K) / 255; the inverted
                                   CMYK of Adobe's JPEGs is turned round when it is decoded
    YCbCr, HSV                     Pillow's conversion (JFIF; hue 0..255)
    LAB                            to sRGB through littleCMS, D50
    =============================  ================================================================

    Colours are then those of the profile that the picture bears, brought to sRGB (`colour.py`):
    its ICC profile; without one, gAMA and cHRM of a PNG, both of them, or Adobe RGB if a camera's
    EXIF block says so (interoperability R03); else they are sRGB already. cICP of a PNG, nclx of
    AVIF and HEIC do not count. Raises ValueError if Pillow cannot convert the mode (none of those
    above).
    """
    profile = _profile(image)
    if image.mode.startswith("I"):
        return in_srgb(_from_wide(image), profile)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 1.0 if grey.max() > 1 else 255.0
        grey = np.clip(grey * scale, 0, 255)
        return in_srgb(Image.fromarray(grey.astype(np.uint8)), profile)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow goes no further in one step
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        colours = layer
        if profile is not None:
            grey_only = image.mode in ("1", "L", "LA")
            colours = layer.getchannel("R") if grey_only else layer.convert("RGB")
            colours = in_srgb(colours, profile)
        ground.paste(colours, mask=layer)  # the pixels of alpha_composite in a third of its memory
        return ground
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "CMYK"):
        image = image if image.mode == "RGB" else image.convert("RGB")
    return in_srgb(image, profile)


def _profile(image: Image.Image) -> bytes | None:
    """The ICC profile that a picture bears, or what it says elsewhere as one; None is sRGB."""
    info = image.info
    if info.get("icc_profile"):
        profile = info["icc_profile"]
        return profile if isinstance(profile, bytes) else None
    if "chromaticity" in info and "srgb" not in info:
        return png_profile(info.get("gamma"), info["chromaticity"])
    exif = info.get("exif")
    if isinstance(exif, bytes) and b"R03\0" in exif:
        with suppress(Exception):
            if _exif(image).get_ifd(_INTEROPERABILITY).get(1) == "R03":
                return adobe_rgb()
    return None


def _from_wide(image: Image.Image) -> Image.Image:
    """The grey, L, of a picture of up to 32 bits."""
    wide = np.asarray(image).astype(np.int32)
    transparent = image.info.get("transparency")
    white = wide == transparent if isinstance(transparent, int) else None
    np.clip(wide, 0, 65535, out=wide)
    wide += 128  # round(x / 257); 257 is odd, so that no tie arises
    wide //= 257
    grey = wide.astype(np.uint8)
    if white is not None:
        grey[white] = 255
    return Image.fromarray(grey)
