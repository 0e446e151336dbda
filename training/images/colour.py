"""From the colours that a file's profile means to sRGB, by littleCMS.

Relative colorimetric with black point compensation: colours that sRGB has stay what they are,
others go to its edge; perceptual tables of profiles shift all of them. A profile that is broken, of
another space than the pixels, or so wrong that white is not white, counts as none, that is as sRGB.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

PROFILE_LIMIT = 4 * 2**20
"""Most bytes of a profile; those of printing presses have up to 3 million."""

Chromaticities = tuple[float, ...]

_SRGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_D50 = np.array([0.9642, 1.0, 0.8249])  # XYZ of the white that profiles refer to
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_PICTURES = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})  # classes; others are no picture's
_NEAR = 2  # levels in which a profile may differ from sRGB and still count as it
_STEPS = 9  # levels of each channel at which the two are compared


def in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """The RGB picture of one in RGB, L or CMYK whose colours are those of `profile` (ICC; anything
    that is not one counts as none). May be the same picture."""
    if isinstance(profile, bytes) and len(profile) <= PROFILE_LIMIT:
        mode = _MODES.get(profile[16:20])
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        transform = _transform(profile) if mode == image.mode else None
        if transform is not None:
            return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


# Some ms to make, and a shop has a few. Threads may share one: littleCMS only reads it.
@lru_cache(maxsize=8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """What applies a profile; None if that changes nothing, or it is not to be trusted."""
    mode = _MODES[profile[16:20]]
    if profile[12:16] not in _PICTURES:
        return None
    bands = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    levels = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * bands, indexing="ij"), -1)
    colours = Image.frombytes(mode, (_STEPS**bands, 1), grid.tobytes())
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        changed = np.asarray(transform.apply(colours)).astype(int)[0]
    except Exception:  # of a malformed profile
        return None
    dark, light = (changed[-1], changed[0]) if mode == "CMYK" else (changed[0], changed[-1])
    if light.min() < 250 or dark.max() > 64:
        return None
    plain = np.asarray(colours.convert("RGB")).astype(int)[0]
    return None if np.abs(changed - plain).max() <= _NEAR else transform


def adobe_rgb() -> bytes | None:
    """The profile of cameras that say `R03` in their EXIF block instead of giving one."""
    return _matrix_profile(_ADOBE_RGB, 563 / 256)


def png_profile(gamma: object, chromaticities: object) -> bytes | None:
    """The profile that a PNG's chunks gAMA (0..1) and cHRM (x and y of white, red, green, blue)
    describe; None if one is missing or senseless, or if they mean sRGB."""
    if not isinstance(gamma, float) or not isinstance(chromaticities, tuple):
        return None
    away = np.abs(np.subtract(chromaticities, _SRGB)).max()
    if not 0.2 <= gamma <= 1 or (away < 0.005 and abs(gamma - 1 / 2.2) < 0.01):
        return None
    return _matrix_profile(chromaticities, 1 / gamma)


@lru_cache(maxsize=8)
def _matrix_profile(chromaticities: Chromaticities, exponent: float) -> bytes | None:
    """An ICC profile (version 2) of x and y of white, red, green and blue and linear = value **
    exponent; None if there is none of these primaries."""
    x, y = np.reshape(chromaticities, (4, 2)).T
    with np.errstate(all="ignore"):
        points = np.stack([x / y, np.ones(4), (1 - x - y) / y])  # XYZ, a column each
    try:
        primaries = points[:, 1:] * np.linalg.solve(points[:, 1:], points[:, 0])
        cones = _BRADFORD @ np.stack([points[:, 0], _D50], 1)
        adapted = np.linalg.solve(_BRADFORD, cones[:, 1:] / cones[:, :1] * (_BRADFORD @ primaries))
    except np.linalg.LinAlgError:
        return None
    if not (np.abs(adapted) < 4).all():
        return None
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(exponent * 256))
    tags = {b"wtpt": _D50} | dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True))
    data = {
        name: struct.pack(">4s4x3i", b"XYZ ", *np.round(xyz * 65536).astype(int))
        for name, xyz in tags.items()
    } | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    listed, body = b"", b""
    for name, value in data.items():
        listed += struct.pack(">4sII", name, 128 + 4 + 12 * len(data) + len(body), len(value))
        body += value
    body = struct.pack(">I", len(data)) + listed + body
    white = np.round(_D50 * 65536).astype(int)
    return (
        struct.pack(
            ">I4xI4s4s4s12x4s28x3i48x",
            128 + len(body),
            2 << 24,
            b"mntr",
            b"RGB ",
            b"XYZ ",
            b"acsp",
            *white,
        )
        + body
    )
