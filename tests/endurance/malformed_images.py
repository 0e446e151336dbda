"""Seeded malformed images: rendered pictures of five formats, each with one kind of damage."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from numpy.random import Generator
from PIL import Image

Pieces = list[bytes]

DISGUISES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<!doctype html><html><body><script>1</script></body></html>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n%%EOF\n",
    "pdf": b"%PDF-1.4\n1 0 obj\n<</Type /Catalog>>\nendobj\n%%EOF\n",
    "ico": b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + b"\0" * 48,
    "zip": b"PK\3\4" + b"\0" * 40,
    "python": b"import os\n",
}
"""What is no picture of the allow-list, by kind."""


def malformed_images(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged image files, the same for the same seed.

    Args:
        count: how many.
        seed: of the pictures and of the damage.

    Yields:
        File name, `NNNN-damage.suffix` (the suffix may lie), and content; kinds of damage take
        turns, so that few images show all of them.
    """
    generator = np.random.default_rng(seed)
    bases = list(_bases(generator))
    damages = list(DAMAGES.items())
    for number in range(count):
        suffix, content = bases[(number // len(damages)) % len(bases)]
        kind, damage = damages[number % len(damages)]
        if kind == "disguise":
            content = list(DISGUISES.values())[(number // len(damages)) % len(DISGUISES)]
        elif kind == "suffix":
            suffix = ["gif", "svg", "png", "jpg", "txt"][(number // len(damages)) % 5]
        yield f"{number:04d}-{kind}.{suffix}", damage(content, generator)


def _bases(generator: Generator) -> Iterator[tuple[str, bytes]]:
    y, x = np.mgrid[0:48, 0:64]
    shape = np.stack([y * 5, x * 3, 128 + 90 * np.sin(x * y / 200)], -1)
    pixels = (shape + generator.normal(0, 12, shape.shape)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    alpha = picture.copy()
    alpha.putalpha(picture.getchannel(2))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    for suffix, image, options in (
        ("jpg", picture, {"quality": 90, "exif": exif}),
        ("png", picture, {}),
        ("webp", picture, {}),
        ("gif", picture.quantize(64), frames),
        ("bmp", picture, {}),
        ("jpg", picture, {"progressive": True}),
        ("png", alpha, {"exif": exif}),
        ("webp", alpha, {"lossless": True, "exif": exif}),
        ("gif", picture.quantize(16), {"transparency": 3}),
        ("bmp", picture.quantize(16), {}),
        ("jpg", picture.convert("CMYK"), {}),
        ("png", picture.quantize(16), {"transparency": bytes(range(16))}),
        ("webp", picture, frames),
        ("png", picture, frames),
        ("png", picture.convert("I;16"), {}),
    ):
        file = BytesIO()
        image.save(file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), **options)
        yield suffix, file.getvalue()


def pieces_of(content: bytes) -> Pieces:
    """Cut a file at its chunks (PNG, RIFF) or segments (JPEG), else into blocks of 64 bytes."""
    cuts = [0]
    if content.startswith(b"\x89PNG"):
        cuts.append(8)
        while cuts[-1] + 8 <= len(content):
            cuts.append(cuts[-1] + 12 + int.from_bytes(content[cuts[-1] : cuts[-1] + 4], "big"))
    elif content.startswith(b"RIFF"):
        cuts.append(12)
        while cuts[-1] + 8 <= len(content):
            size = int.from_bytes(content[cuts[-1] + 4 : cuts[-1] + 8], "little")
            cuts.append(cuts[-1] + 8 + size + size % 2)
    elif content.startswith(b"\xff\xd8"):
        cuts.append(2)
        while content[cuts[-1] : cuts[-1] + 1] == b"\xff" and content[cuts[-1] + 1] != 0xD9:
            here = cuts[-1]
            is_scan = content[here + 1] == 0xDA
            here += 2 + int.from_bytes(content[here + 2 : here + 4], "big")
            while is_scan and not (
                content[here] == 0xFF and content[here + 1] not in (0, *RESTART)
            ):
                here += 1
            cuts.append(here)
    else:
        cuts += range(64, len(content), 64)
    stops = [*cuts[1:], len(content)]
    return [content[a:b] for a, b in zip(cuts, stops, strict=True) if content[a:b]]


RESTART = range(0xD0, 0xD8)


def _flips(content: bytes, generator: Generator) -> bytes:
    damaged = bytearray(content)
    for position in generator.integers(0, len(content), generator.integers(1, 20)):
        damaged[position] ^= 1 << int(generator.integers(8))
    return bytes(damaged)


def _cut(content: bytes, generator: Generator) -> bytes:
    return content[: generator.integers(0, len(content))]


def _swap(content: bytes, generator: Generator) -> bytes:
    pieces = pieces_of(content)
    a, b = generator.integers(1, max(2, len(pieces)), 2) % len(pieces)
    pieces[a], pieces[b] = pieces[b], pieces[a]
    return b"".join(pieces)


def _repeat(content: bytes, generator: Generator) -> bytes:
    pieces = pieces_of(content)
    number = int(generator.integers(len(pieces)))
    return b"".join(pieces[:number] + pieces[number : number + 1] * 50 + pieces[number + 1 :])


def _drop(content: bytes, generator: Generator) -> bytes:
    pieces = pieces_of(content)
    del pieces[int(generator.integers(len(pieces)))]
    return b"".join(pieces)


def _header(content: bytes, generator: Generator) -> bytes:
    """An extreme number somewhere in the first 64 bytes: sizes, counts, offsets."""
    damaged = bytearray(content)
    number = int(generator.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 7001]))
    form = str(generator.choice(["<I", ">I", "<H", ">H"]))
    number &= 0xFFFF if form[1] == "H" else 0xFFFFFFFF
    struct.pack_into(form, damaged, int(generator.integers(2, 60)), number)
    return bytes(damaged)


def _sealed(content: bytes, generator: Generator) -> bytes:
    """Flips in the chunks of a PNG, whose checksums are then put right; elsewhere plain flips."""
    if not content.startswith(b"\x89PNG"):
        return _flips(content, generator)
    pieces = pieces_of(content)
    for number, piece in enumerate(pieces[1:], 1):
        if len(piece) > 12 and generator.random() < 0.5:
            body = piece[4:8] + _flips(piece[8:-4], generator)
            pieces[number] = piece[:4] + body + struct.pack(">I", zlib.crc32(body))
    return b"".join(pieces)


def _noise(content: bytes, generator: Generator) -> bytes:
    start, stop = np.sort(generator.integers(8, len(content), 2))
    return content[:start] + generator.bytes(int(stop - start)) + content[stop:]


def _as_it_is(content: bytes, generator: Generator) -> bytes:
    return content


DAMAGES: dict[str, Callable[[bytes, Generator], bytes]] = {
    "flips": _flips,
    "cut": _cut,
    "swap": _swap,
    "header": _header,
    "repeat": _repeat,
    "drop": _drop,
    "sealed": _sealed,
    "noise": _noise,
    "suffix": _as_it_is,
    "disguise": _as_it_is,
}
"""Kind of damage -> what does it."""
