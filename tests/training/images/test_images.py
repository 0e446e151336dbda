"""Pictures of every kind become RGB by one rule, or a DataError that says why."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.images.read import decode_rgb, open_picture
from training.images.tensors import normalise

RED = np.array([200, 30, 40])


def saved(tmp_path: Path, image: Image.Image, name: str, **options) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def pixels(path: Path) -> np.ndarray:
    image = open_picture(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def solid(mode: str, colour, size=(6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "wrong.gif.png"])
def test_formats(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, solid("RGB", tuple(RED)), name)
    assert np.abs(pixels(path) - RED).max() <= 4


def test_padding_keeps_the_shape_on_a_neutral_ground() -> None:
    preprocessing = Preprocessing(size=40, mode="pad")
    fitted = preprocessing.fit(solid("RGB", (255, 255, 255), (20, 10)))
    assert (fitted[:, 10:30] == 255).all()
    normal = normalise(torch.from_numpy(fitted).unsqueeze(0), preprocessing)[0]
    assert float(normal[:, 5, 5].abs().max()) < 0.01


@pytest.mark.parametrize("mode", ["pad", "stretch", "crop"])
def test_drafting_changes_no_more_than_the_tolerance(tmp_path: Path, mode) -> None:
    """Edges, texture and gradients as in a photograph, against the full decoding."""
    y, x = np.mgrid[0:1200, 0:900]
    weave = 20 * np.sin(x / 3) * np.sin(y / 5)
    ground = [127 + 60 * np.sin(x / 90) + weave, 127 + 60 * np.cos(y / 70) - weave, x / 4]
    photo = np.stack(ground, -1) + 40 * ((x // 150 + y // 200) % 2)[..., None]
    photo += np.random.default_rng(0).normal(0, 6, photo.shape)
    image = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
    path = saved(tmp_path, image, "a.jpg", quality=90)
    preprocessing = Preprocessing(size=100, mode=mode)
    assert open_picture(path, draft=100).size == (225, 300)
    difference = np.abs(
        preprocessing.open(path).astype(int) - preprocessing.fit(open_picture(path))
    )
    assert 0 < difference.mean() < 0.5
    assert difference.max() <= 8


def test_drafting_keeps_what_it_would_shift_or_blur(tmp_path: Path) -> None:
    for size in ((902, 1201), (396, 500), (1, 9000)):
        path = saved(tmp_path, solid("RGB", tuple(RED), size), "a.jpg")
        assert open_picture(path, draft=100).size == size
    assert (
        open_picture(saved(tmp_path, solid("L", 9, (1600, 1600)), "b.jpg"), draft=100).size[0]
        == 200
    )


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("side", [8_000, 13_000, 60_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
            decode_rgb(png(side, side), "bomb.png")


def test_broken_and_disguised_files(tmp_path: Path) -> None:
    photo = tmp_path / "good.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(photo)
    good = photo.read_bytes()
    eps = BytesIO()
    solid("RGB", tuple(RED)).save(eps, "EPS")
    cases = {
        "cut.jpg": (good[: len(good) // 2], "truncated"),
        "empty.jpg": (b"", "empty file"),
        "page.jpg": (b"<html></html>", "not an image of a known format"),
        "eps.jpg": (eps.getvalue(), "not an image of a known format"),
        "zero.png": (png(0, 0), "."),
        "short.png": (png(500, 500, b"123"), "."),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: .*{reason}"):
            open_picture(tmp_path / name)
    generator = np.random.default_rng(1)
    for _ in range(200):  # any damage is a picture or a DataError, nothing else
        damaged = bytearray(good)
        for position in generator.integers(0, len(good), 20):
            damaged[position] = generator.integers(0, 256)
        with contextlib.suppress(DataError):
            assert decode_rgb(bytes(damaged), "x").mode == "RGB"


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, reason in {
        "gone.jpg": "no such file",
        ".": "directory",
        "pipe.jpg": "not a regular file",
        "loop.jpg": "symbolic links",
        "nul\0.jpg": "null",
    }.items():
        with pytest.raises(DataError, match=reason):
            open_picture(tmp_path / name)


def test_preprocessing_round_trip() -> None:
    preprocessing = Preprocessing(size=64, mode="crop", mean=(0.1, 0.2, 0.3))
    again = Preprocessing.from_json(preprocessing.to_json())
    assert again == preprocessing
    assert again.hash == preprocessing.hash != Preprocessing(size=64).hash
    for bad in ({}, {"size": 0}, {"mode": "zoom"}, {"mean": [1, 2]}, {"std": [0, 1, 1]}):
        with pytest.raises(DataError):
            Preprocessing.from_json(preprocessing.to_json() | bad if bad else {})
