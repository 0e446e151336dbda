"""Fault 23: a picture of any Pillow mode becomes RGB by one rule, upright and finite."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from training.images.preprocessing import Preprocessing
from training.images.read import decode_rgb, to_rgb
from training.images.tensors import normalise


def pixel(image: Image.Image) -> tuple[int, ...]:
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert rgb.size == image.size
    return rgb.getpixel((0, 0))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def over_white(colour: int, alpha: int) -> int:
    return round((colour * alpha + 255 * (255 - alpha)) / 255)


MODES = {
    "1": (1, (255, 255, 255)),
    "L": (77, (77, 77, 77)),
    "LA": ((100, 51), (over_white(100, 51),) * 3),
    "La": ((20, 51), (over_white(100, 51),) * 3),
    "P": (0, (0, 0, 0)),
    "PA": ((0, 0), (255, 255, 255)),
    "RGB": ((200, 30, 40), (200, 30, 40)),
    "RGBX": ((200, 30, 40, 0), (200, 30, 40)),
    "RGBA": ((200, 30, 40, 128), tuple(over_white(c, 128) for c in (200, 30, 40))),
    "RGBa": ((40, 6, 8, 51), tuple(over_white(c, 51) for c in (200, 30, 40))),
    "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
    "YCbCr": ((76, 85, 255), (255, 0, 0)),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "HSV": ((0, 255, 255), (255, 0, 0)),
    "I": (257 * 90, (90, 90, 90)),
    "I;16": (257 * 90, (90, 90, 90)),
    "I;16L": (257 * 90, (90, 90, 90)),
    "I;16B": (257 * 90, (90, 90, 90)),
    "I;16N": (257 * 90, (90, 90, 90)),
    "F": (0.5, (127, 127, 127)),
}


@pytest.mark.parametrize("mode", MODES)
def test_fault_23_every_mode_follows_the_rule(mode: str) -> None:
    stored, expected = MODES[mode]
    if mode in ("LAB", "La", "RGBa"):  # these cannot be made by a colour
        count = len(stored) if mode != "LAB" else 3
        raw = bytes(stored) * 6
        signed = (0, 128, 128)
        raw = bytes(v ^ s for v, s in zip(raw, signed * 6, strict=True)) if mode == "LAB" else raw
        assert len(raw) == 6 * count
        image = Image.frombytes(mode, (3, 2), raw)
    else:
        image = Image.new(mode, (3, 2), stored)
    assert np.abs(np.subtract(pixel(image), expected)).max() <= 1


def test_fault_23_no_mode_of_pillow_is_forgotten() -> None:
    assert set(Image.MODES) <= set(MODES)


def test_fault_23_wide_and_float_greys_use_their_full_range() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(every / 257)
    little, big = every.astype("<u2"), every.astype(">u2")
    for mode, values in (("I;16", little), ("I;16L", little), ("I;16B", big)):
        image = Image.frombytes(mode, (256, 256), values.tobytes())
        np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 1], expected)
    assert [pixel(Image.new("I", (1, 1), v))[0] for v in (-5, 0, 65535, 70000)] == [0, 0, 255, 255]
    floats = np.array([[np.nan, np.inf, -np.inf, -3, 0, 0.25, 1]], dtype=np.float32)
    assert np.asarray(to_rgb(Image.fromarray(floats)))[0, :, 0].tolist() == [0, 0, 0, 0, 0, 63, 255]
    floats = np.array([[0, 1, 2, 200, 255, 1e30]], dtype=np.float32)
    assert np.asarray(to_rgb(Image.fromarray(floats)))[0, :, 0].tolist() == [0, 1, 2, 200, 255, 255]


def test_fault_23_transparency_of_every_kind_is_white() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 200, 30, 40])
    cases = [
        (encoded(palette, "PNG", transparency=1), 255),
        (encoded(palette, "PNG", transparency=b"\xff\x00"), 255),
        (encoded(palette, "GIF", transparency=1), 255),
        (encoded(palette, "PNG", transparency=0), 200),
        (encoded(Image.new("L", (4, 4), 70), "PNG", transparency=70), 255),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), 255),
        (encoded(Image.new("I;16", (4, 4), 5000), "PNG", transparency=5000), 255),
        (encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 0)), "WEBP", lossless=True), 255),
        (encoded(Image.new("LA", (4, 4), (1, 0)), "PNG"), 255),
    ]
    for number, (content, red) in enumerate(cases):
        assert decode_rgb(content, "x").getpixel((2, 2))[0] == red, number


def test_fault_23_transparency_equals_alpha_composite() -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 4)).astype(np.uint8)
    image = Image.fromarray(values)
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(expected)[..., :3])


def test_fault_23_cmyk_is_the_same_picture_whether_adobe_inverted_it_or_not() -> None:
    image = Image.new("CMYK", (16, 16), (0, 200, 150, 20))
    expected = np.array(pixel(image))
    jpeg = encoded(image, "JPEG", quality=100)  # Pillow writes it as Adobe does, inverted
    assert b"Adobe" in jpeg
    for content in (jpeg, encoded(image, "TIFF")):
        assert np.abs(np.array(decode_rgb(content, "x").getpixel((5, 5))) - expected).max() <= 3


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [*TURNED, 0, 9, 65535])
def test_fault_23_exif_rotation(kind: str, orientation: int) -> None:
    stored = np.zeros((24, 40, 3), dtype=np.uint8)
    stored[:12, :20], stored[12:, :20], stored[:12, 20:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    content = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    expected = TURNED.get(orientation, TURNED[1])(stored).astype(int)
    found = np.asarray(decode_rgb(content, "x"))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 8  # JPEG blurs the colours where they meet


def test_fault_23_rotation_of_modes_that_are_not_rgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        content = encoded(Image.new(mode, (9, 4)), "PNG", exif=exif)
        assert decode_rgb(content, "x").size == (4, 9), mode
    for mode in ("I;16B", "I;16", "F", "CMYK", "I"):
        content = encoded(Image.new(mode, (9, 4)), "TIFF", exif=exif)
        assert decode_rgb(content, "x").size == (4, 9), mode


@pytest.mark.parametrize("mode", ["pad", "stretch", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_fault_23_extreme_shapes_give_finite_input(mode, size, kind) -> None:
    content = encoded(Image.new("RGB", size, (200, 30, 40)), kind)
    preprocessing = Preprocessing(size=32, mode=mode)
    fitted = preprocessing.decode(content, "x")
    assert fitted.shape == (3, 32, 32)
    normalised = normalise(torch.from_numpy(fitted.copy()).unsqueeze(0), preprocessing)
    assert torch.isfinite(normalised).all()
    middle = fitted[:, 15:17, 15:17].reshape(3, -1).T.astype(int)  # a strip of 1 pixel if padded
    assert np.abs(middle - (200, 30, 40)).max(1).min() <= 6


def test_a_little_endian_tiff_of_16_bits_equals_a_big_endian_one() -> None:
    def tiff(order: str) -> bytes:
        values = {256: 2, 257: 1, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 4}
        entries = b"".join(struct.pack(f"{order}HHII", t, 4, 1, v) for t, v in values.items())
        mark = b"II" if order == "<" else b"MM"
        data = struct.pack(f"{order}HH", 257 * 10, 257 * 200)
        head = mark + struct.pack(f"{order}HI", 42, 12) + data
        return head + struct.pack(f"{order}H", len(values)) + entries + bytes(4)

    for order in "<>":
        picture = decode_rgb(tiff(order), order)
        assert [picture.getpixel((x, 0))[0] for x in (0, 1)] == [10, 200], order
