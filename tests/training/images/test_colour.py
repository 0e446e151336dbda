"""Colours that a profile gives another meaning become those of sRGB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from training.images.read import decode_rgb, open_picture

Floats = NDArray[np.float64]

# x and y of red, green and blue, as published (SMPTE EG 432-1 with D65; Adobe RGB (1998)).
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
WHITE = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
ADAPTED = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ WHITE)) @ BRADFORD
PALETTE = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3, indexing="ij"), -1).reshape(6, 36, 3)
PALETTE = PALETTE.astype(np.uint8)


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Floats:
    """XYZ of linear red, green and blue, a column each, white being D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, WHITE)


def srgb_curve(linear: Floats) -> Floats:
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_linear(values: Floats) -> Floats:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def expected(pixels: NDArray[np.uint8], primaries, linear) -> Floats:
    """What sRGB says for pixels [..., 3] of a space: its primaries, its curve to linear light."""
    light = linear(pixels / 255) @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    return 255 * srgb_curve(light)


def s15(values) -> bytes:
    return struct.pack(f">{len(values)}i", *[round(float(v) * 65536) for v in values])


def icc(space: bytes, tags: dict[bytes, bytes], kind=b"mntr", pcs=b"XYZ ") -> bytes:
    """A profile (ICC.1:2001-04) of the least that it needs."""
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4xI", start + len(body), 0x02400000) + kind + space + pcs + bytes(12)
    head += b"acsp" + bytes(28) + s15(D50) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def matrix_profile(primaries, curve: bytes) -> bytes:
    columns = (ADAPTED @ to_xyz(primaries)).T
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {n: b"XYZ \0\0\0\0" + s15(c) for n, c in zip(names, columns, strict=True)}
    tags |= {b"wtpt": b"XYZ \0\0\0\0" + s15(D50)}
    return icc(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def curve(values) -> bytes:
    """A table of 1024 steps, of values 0..1."""
    table = np.round(np.asarray(values(np.linspace(0, 1, 1024))) * 65535).astype(">u2").tobytes()
    return b"curv" + struct.pack(">4xI", 1024) + table


def adobe_linear(values: Floats) -> Floats:
    return values ** (563 / 256)


SPACES = {
    "Display P3": (DISPLAY_P3, srgb_linear),
    "Adobe RGB": (ADOBE_RGB, adobe_linear),
}
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def off(found: Image.Image, wanted: Floats) -> float:
    return float(np.abs(np.asarray(found).astype(float) - wanted).max())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "array in PIL"])
def test_colours_of_a_wider_space_become_those_of_srgb(space: str, kind: str) -> None:
    primaries, linear = SPACES[space]
    profile = matrix_profile(primaries, curve(linear))
    image = Image.fromarray(PALETTE)
    wanted = expected(PALETTE, primaries, linear)
    assert off(image, wanted) > 30  # what it would look like if the profile did not count
    if kind == "array in PIL":
        image.info["icc_profile"] = profile
        assert off(open_picture(image), wanted) <= 2
        assert np.array_equal(np.asarray(image), PALETTE)  # the caller's picture stays
    else:
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(image, kind, icc_profile=profile, **options)
        assert off(decode_rgb(content, "x"), wanted) <= 2


@pytest.mark.parametrize("draft", [None, 50])
def test_a_jpeg_in_display_p3_by_its_profile(draft: int | None) -> None:
    primaries, linear = SPACES["Display P3"]
    red = np.full((256, 256, 3), (200, 30, 40), np.uint8)
    profile = matrix_profile(primaries, curve(linear))
    content = encoded(Image.fromarray(red), "JPEG", quality=100, icc_profile=profile)
    wanted = expected(red, primaries, linear)[0, 0]
    found = decode_rgb(content, "x", draft=draft)
    assert found.size == ((256, 256) if draft is None else (128, 128))
    assert off(found, wanted) <= 4  # JPEG itself may miss by 2
    assert wanted[0] > 215


def test_transparency_and_palettes_keep_it_over_white() -> None:
    primaries, linear = SPACES["Adobe RGB"]
    profile = matrix_profile(primaries, curve(linear))
    clear = Image.fromarray(PALETTE)
    clear.putalpha(Image.fromarray(np.tile(np.uint8([0, 51, 255]), (6, 12))))
    wanted = expected(PALETTE, primaries, linear)
    alpha = np.asarray(clear)[..., 3:] / 255
    over = wanted * alpha + 255 * (1 - alpha)
    assert off(decode_rgb(encoded(clear, "PNG", icc_profile=profile), "x"), over) <= 2
    few = Image.fromarray(PALETTE).quantize(256)
    wanted = expected(np.asarray(few.convert("RGB")), primaries, linear)
    assert off(decode_rgb(encoded(few, "PNG", icc_profile=profile), "x"), wanted) <= 2


def test_grey_and_ink_have_profiles_too() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    profile = icc(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + s15(D50), b"kTRC": curve(lambda v: v**1.8)})
    wanted = 255 * srgb_curve((ramp / 255) ** 1.8)[..., None] * np.ones(3)
    for image in (Image.fromarray(ramp), Image.fromarray(ramp.astype(np.uint16) * 257)):
        found = decode_rgb(encoded(image, "PNG", icc_profile=profile), "x")
        assert off(found, wanted) <= 2
    alpha = Image.merge("LA", [Image.fromarray(ramp), Image.new("L", (256, 4), 255)])
    assert off(decode_rgb(encoded(alpha, "PNG", icc_profile=profile), "x"), wanted) <= 2

    # A printer whose cyan, magenta, yellow and black have these L*, a*, b*; overprints are black.
    inks = {8: (55, -37, -50), 4: (48, 74, -3), 2: (89, -5, 93), 1: (0, 0, 0), 0: (100, 0, 0)}
    table = [inks.get(number, (0, 0, 0)) for number in range(16)]
    lab8 = bytes(v for L, a, b in table for v in (round(L * 2.55), a + 128, b + 128))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + s15(np.eye(3).ravel())
    lut += bytes(range(256)) * 4 + lab8 + bytes(range(256)) * 3
    tags = {b"wtpt": b"XYZ \0\0\0\0" + s15(D50), b"A2B0": lut, b"A2B1": lut}
    profile = icc(b"CMYK", tags, b"prtr", b"Lab ")
    for ink, lab in ((0, inks[8]), (1, inks[4]), (2, inks[2])):
        amount = [0, 0, 0, 0]
        amount[ink] = 255
        image = Image.new("CMYK", (16, 16), tuple(amount))
        found = decode_rgb(encoded(image, "TIFF", icc_profile=profile), "x").getpixel((3, 3))
        assert np.abs(np.array(found) - lab_to_srgb(*lab)).max() <= 3
        jpeg = encoded(image, "JPEG", quality=100, icc_profile=profile)  # stored inverted
        assert np.abs(np.array(decode_rgb(jpeg, "x").getpixel((3, 3))) - found).max() <= 4


def lab_to_srgb(lightness: float, a: float, b: float) -> Floats:
    """From D50, as profiles have it (ICC.1, CIE 15)."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return 255 * srgb_curve(np.linalg.solve(ADAPTED @ to_xyz(SRGB), xyz))


def srgb_like() -> dict[str, bytes]:
    whole = matrix_profile(DISPLAY_P3, curve(srgb_linear))
    black = matrix_profile(DISPLAY_P3, curve(lambda v: v * 0))
    return {
        "sRGB by littleCMS": SRGB_PROFILE,
        "sRGB by hand": matrix_profile(SRGB, curve(srgb_linear)),
        "cut": whole[:200],
        "junk": b"junk" * 100,
        "empty": b"",
        "no tags": icc(b"RGB ", {}),
        "all black": black,
        "of ink": icc(b"CMYK", {}),
        "of a device link": icc(b"RGB ", {}, b"link"),
        "grey": icc(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + s15(D50), b"kTRC": curve(lambda v: v)}),
        "unknown space": icc(b"9CLR", {}),
    }


@pytest.mark.parametrize("name", srgb_like())
def test_what_is_srgb_or_no_profile_of_the_pixels_changes_none(name: str) -> None:
    for image in (Image.fromarray(PALETTE), Image.fromarray(PALETTE[..., 0])):
        if (name, image.mode) == ("grey", "L"):
            continue
        content = encoded(image, "PNG", icc_profile=srgb_like()[name])
        wanted = np.asarray(image.convert("RGB")).astype(float)
        assert off(decode_rgb(content, "x"), wanted) == 0


def test_a_camera_that_says_adobe_rgb_in_exif_alone() -> None:
    image = Image.new("RGB", (32, 32), (40, 190, 60))
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03", 2: b"0100"}}
    content = encoded(image, "JPEG", quality=100, exif=exif)
    wanted = expected(np.uint8([40, 190, 60]), *SPACES["Adobe RGB"])
    assert off(decode_rgb(content, "x"), wanted) <= 4
    assert wanted[0] < 5  # out of sRGB's green
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98", 2: b"0100"}}
    content = encoded(image, "JPEG", quality=100, exif=exif)
    assert off(decode_rgb(content, "x"), np.array([40, 190, 60.0])) <= 2


def test_a_png_that_says_its_space_by_numbers() -> None:
    plain = encoded(Image.fromarray(PALETTE), "PNG")

    def with_chunks(**chunks: bytes) -> Image.Image:
        data = b""
        for name, body in chunks.items():
            kind = name.encode()
            data += struct.pack(">I", len(body)) + kind + body
            data += struct.pack(">I", zlib.crc32(kind + body))
        return decode_rgb(plain[:33] + data + plain[33:], "x")

    def chromaticities(primaries) -> bytes:
        flat = [v for pair in ((0.3127, 0.3290), *primaries) for v in pair]
        return struct.pack(">8I", *[round(v * 100_000) for v in flat])

    gamma = struct.pack(">I", round(100_000 * 256 / 563))
    wide = chromaticities(ADOBE_RGB)
    assert off(with_chunks(gAMA=gamma, cHRM=wide), expected(PALETTE, *SPACES["Adobe RGB"])) <= 2
    same = PALETTE.astype(float)
    assert off(with_chunks(gAMA=gamma, cHRM=wide, sRGB=b"\0"), same) == 0
    assert off(with_chunks(gAMA=gamma, cHRM=chromaticities(SRGB)), same) == 0
    for odd in (bytes(32), b"\xff" * 32, chromaticities(((0.3, 0.3),) * 3)):
        assert off(with_chunks(gAMA=gamma, cHRM=odd), same) == 0
    for alone in ({"gAMA": gamma}, {"cHRM": wide}, {"gAMA": bytes(4), "cHRM": wide}):
        assert off(with_chunks(**alone), same) == 0
