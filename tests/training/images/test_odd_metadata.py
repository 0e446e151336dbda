"""Sound pixels beside odd metadata are read as without it; large JPEGs in little memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.errors import DataError
from training.images.limits import draft_scale
from training.images.parts import jpeg_head, needed_parts
from training.images.read import decode_rgb

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes = b"", checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def segment(code: int, data: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(data) + 2) + data


def exif(*entries: bytes) -> bytes:
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return segment(0xE1, b"Exif\0\0" + head + b"".join(entries) + bytes(12))


BOMB = zlib.compress(bytes(30_000_000), 9)
FRAME = struct.pack(">IIIIIHHBB", 5, 640, 480, 3, 3, 0, 0, 0, 0)
CHUNKS = {
    "compressed text": chunk(b"zTXt", b"x\0\0" + BOMB),
    "international text": chunk(b"iTXt", b"x\0\1\0\0\0" + BOMB),
    "profile without end": chunk(b"iCCP", b"x\0\0" + BOMB),
    "much text": b"".join(chunk(b"tEXt", b"%d\0" % n + b"a" * 900_000) for n in range(80)),
    "text of no method": chunk(b"zTXt", b"x\0\5abc"),
    "profile of no method": chunk(b"iCCP", b"x\0\5abc"),
    "profile cut": chunk(b"iCCP", b"x"),
    "gamma cut": chunk(b"gAMA", b"\0"),
    "primaries cut": chunk(b"cHRM", b"\0"),
    "srgb cut": chunk(b"sRGB"),
    "resolution cut": chunk(b"pHYs", b"\0"),
    "checksum": chunk(b"tEXt", b"a\0b", 1),
    "checksum of exif": chunk(b"eXIf", b"II*\0", 1),
    "exif": chunk(b"eXIf", b"junk"),
    "text that Pillow takes for interlacing": chunk(b"tEXt", b"interlace\0001"),
    "text that Pillow takes for transparency": chunk(b"tEXt", b"transparency\0oops"),
    "text that Pillow takes for a profile": chunk(b"tEXt", b"icc_profile\0oops"),
    "text that Pillow takes for a frame": chunk(b"tEXt", b"bbox\0oops"),
    "exif as text": chunk(b"tEXt", b"Raw profile type exif\0\n\n\nzz"),
    "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='9\xff"),
    "animation cut": chunk(b"acTL", b"\0"),
    "frame elsewhere": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", FRAME),
}
SEGMENTS = {
    "profile cut": segment(0xE2, b"ICC_PROFILE\0"),
    "profile of missing parts": segment(0xE2, b"ICC_PROFILE\0\1\3abc"),
    "profile": segment(0xE2, b"ICC_PROFILE\0\1\1" + b"junk" * 50),
    "photoshop": segment(0xED, b"Photoshop 3.0\0008BIM\3\xed"),
    "adobe": segment(0xEE, b"Adobe"),
    "jfif": segment(0xE0, b"JFIF\0"),
    "resolution 0": segment(0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0"),
    "thumbnail of a wrong size": segment(0xE0, b"JFIF\0\1\1\1\0\1\0\1\xff\xff"),
    "list of pictures": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"),
    "list of lost pictures": segment(
        0xE2,
        b"MPF\0II*\0\x08\0\0\0\2\0"
        + struct.pack("<HHIIHHII4x", 0xB001, 4, 1, 7, 0xB002, 7, 16, 50),
    ),
    "exif": segment(0xE1, b"Exif\0\0junkjunk"),
    "exif within itself": exif(struct.pack("<HHII", 0x8769, 4, 1, 8)),
    "resolution 1/0": exif(struct.pack("<HHII", 0x11A, 5, 1, 26)),
    "resolution in letters": exif(struct.pack("<HHI4s", 0x11A, 2, 4, b"abc")),
    "rotation in letters": exif(struct.pack("<HHI4s", 0x112, 2, 4, b"abc")),
    "many rotations": exif(struct.pack("<HHII", 0x112, 3, 4, 26)),
    "xmp": segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"\xff'),
    "comments": segment(0xFE, b"\xff" * 65_000) * 20,
}


def same(content: bytes, plain: bytes) -> None:
    found, wanted = np.asarray(decode_rgb(content, "x")), np.asarray(decode_rgb(plain, "x"))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_with_odd_chunks_is_read(name: str) -> None:
    plain = encoded(PICTURE, "PNG")
    same(plain[:33] + CHUNKS[name] + plain[33:], plain)
    same(plain[:-12] + CHUNKS[name] + plain[-12:] + b"trailing bytes", plain)


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_jpeg_with_odd_segments_is_read(name: str) -> None:
    plain = encoded(PICTURE, "JPEG")
    same(plain[:2] + SEGMENTS[name] + plain[2:] + b"trailing bytes", plain)


EXTENSIONS = {
    "comment": b"!\xfe" + (b"\xff" + b"a" * 255) * 1000 + b"\0",
    "empty": b"!\xff\0",
    "control of one byte": b"!\xf9\1\1\0",
    "unknown": b"!\x77\2ab\0",
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_gif_with_odd_extensions_is_read(name: str) -> None:
    plain = encoded(PICTURE.quantize(16), "GIF", transparency=3)
    start = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    same(plain[:start] + EXTENSIONS[name] + plain[start:] + b"trailing bytes", plain)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("entry", ["resolution", "unit", "software", "exif", "gps"])
def test_a_tiff_with_odd_entries_is_read(compression: str | None, entry: str) -> None:
    plain = encoded(PICTURE, "TIFF", compression=compression, dpi=(72, 72), software="abcdefgh")
    odd = bytearray(plain)
    (start,) = struct.unpack_from("<I", odd, 4)
    old, new = {
        "resolution": (282, (282, 2, 4, 0x636261)),
        "unit": (296, (296, 2, 4, 0x636261)),
        "software": (305, (305, 2, 10**6, 0x7FFFFFFF)),
        "exif": (305, (34665, 4, 1, 0x7FFFFFFF)),
        "gps": (305, (34853, 4, 1, 0)),
    }[entry]
    (count,) = struct.unpack_from("<H", odd, start)
    places = [start + 2 + 12 * number for number in range(count)]
    (place,) = [at for at in places if struct.unpack_from("<H", odd, at) == (old,)]
    struct.pack_into("<HHII", odd, place, *new)
    same(bytes(odd), plain)


def test_a_webp_with_odd_chunks_is_read() -> None:
    plain = encoded(PICTURE, "WEBP", lossless=True)
    told = {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0", "xmp": b"<x>", "icc_profile": b"junk" * 40}
    whole = encoded(PICTURE, "WEBP", lossless=True, **told)
    at = whole.index(b"EXIF") + 4
    for odd in (
        whole[:-3],
        whole + b"trailing bytes",
        whole[:4] + struct.pack("<I", len(whole) + 999) + whole[8:],
        whole[:at] + struct.pack("<I", 10**6) + whole[at + 4 :],
    ):
        same(odd, plain)


def test_what_is_no_metadata_still_counts() -> None:
    """A transparent colour, the rotation, and the inks of Adobe's JPEGs, beside odd parts."""
    turn = struct.pack("<HHIHxx", 0x112, 3, 1, 6)
    plain = encoded(PICTURE, "JPEG")
    odd = plain[:2] + SEGMENTS["photoshop"] + exif(turn) + plain[2:]
    assert decode_rgb(odd, "x").size == (48, 64)
    ink = encoded(Image.new("CMYK", (16, 16), (0, 200, 150, 20)), "JPEG")
    same(ink[:2] + SEGMENTS["photoshop"] + SEGMENTS["profile cut"] + ink[2:], ink)
    clear = encoded(Image.new("L", (4, 4), 70), "PNG", transparency=70)
    odd = clear[:33] + CHUNKS["profile of no method"] + clear[33:]
    assert decode_rgb(odd, "x").getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_file_without_odd_parts_is_not_copied(kind: str) -> None:
    content = encoded(PICTURE, kind)
    assert needed_parts(content, jpeg_head(content, 100)) is content


READ = """
import sys
from pathlib import Path
from training.images.read import open_picture

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

before = peak()
try:
    print(*open_picture(sys.argv[1], draft=224).size)
except Exception as error:
    print(error)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("width", "height", "options", "said", "mebibytes"),
    [
        (8160, 6144, {}, "1020 768", 40),
        (12000, 9000, {}, "1500 1125", 40),
        (12001, 9003, {}, "1501 1126", 40),  # not divided without remainder
        (9504, 6336, {"progressive": True}, "1188 792", 250),
        (12000, 9000, {"progressive": True}, "progressive JPEG, which takes 324 MB", 40),
    ],
)
def test_the_limits_are_of_what_is_decoded(
    tmp_path: Path, width: int, height: int, options: dict, said: str, mebibytes: int
) -> None:
    Image.new("RGB", (width, height), "teal").save(tmp_path / "a.jpg", quality=50, **options)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "a.jpg")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    result, grown = done.stdout.splitlines()
    assert said in result
    assert int(grown) < mebibytes


def test_what_cannot_be_decoded_small_keeps_its_limit() -> None:
    large = Image.new("L", (1000, 600), 9)
    for kind in ("PNG", "TIFF", "WEBP", "BMP", "GIF"):
        with pytest.raises(DataError, match="600,000 pixels, more than the 500,000"):
            decode_rgb(encoded(large, kind), "x", limit_pixels=500_000, draft=10)
    content = encoded(large, "JPEG")
    assert decode_rgb(content, "x", limit_pixels=500_000, draft=10).size == (125, 75)
    with pytest.raises(DataError, match="600,000 pixels, more than the 500,000 that are decoded"):
        decode_rgb(content, "x", limit_pixels=500_000)
    with pytest.raises(DataError, match="600,000 pixels, more than the 500,000 that are read"):
        decode_rgb(content, "x", limit_pixels=100_000, draft=10)


def test_the_scale_of_a_draft() -> None:
    assert [draft_scale((1600, 3200), side, 10**8) for side in (None, 100, 101, 400, 401)] == [
        1, 8, 4, 2, 1,
    ]  # fmt: skip
    assert draft_scale((1604, 3200), 100, 10**8) == 4
    assert draft_scale((1601, 3200), 100, 10**8) == 1
    assert draft_scale((1601, 3200), 100, 10**6) == 8
