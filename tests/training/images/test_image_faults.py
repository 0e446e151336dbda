"""Pictures made to harm: bombs, disguises, damage (faults 16, 20, 22)."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import warnings
import zlib
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from check_images import check_images
from malformed_images import DAMAGES, DISGUISES, malformed_images
from PIL import Image

from training.errors import DataError
from training.images.batches import read_batches
from training.images.limits import PNG_CHUNKS
from training.images.preprocessing import Preprocessing
from training.images.read import decode_rgb

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(mebibytes: int) -> bytes:
    """A zlib stream: the blocks of one mebibyte again and again, and the last block."""
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    blocks = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    checksum = (mebibytes * 2**20 % 65521) << 16 | 1
    return b"\x78\xda" + blocks * mebibytes + squeeze.flush() + checksum.to_bytes(4, "big")


def png(width: int, height: int, body: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff_tile(side: int) -> bytes:
    """One pixel, stored as a tile of `side` x `side` that is a bomb."""
    body = zeros(200)
    values = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    values |= {324: 8 + 2 + 12 * 10 + 4, 325: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + body


def webp(width: int, height: int) -> bytes:
    plain = bytearray(encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    at = plain.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", plain, at)
    struct.pack_into("<I", plain, at, bits & 0xF0000000 | width - 1 | (height - 1) << 14)
    return bytes(plain)


BOMBS = {
    "header.png": (png(13_000, 13_000, zeros(20)), "13000 x 13000 is 169,000,000 pixels"),
    "beyond.png": (png(60_000, 60_000, zeros(1)), "more pixels than"),
    "header.gif": (b"GIF89a" + struct.pack("<HH", 9000, 9000) + b"\0\0\0;", "."),
    "header.webp": (webp(16_383, 16_383), "more pixels than"),
    "tile.tiff": (tiff_tile(40_000), "tiles of 1,600,000,000 pixels"),
}

# The pixels are sound: they are read, and the bomb beside them is left alone.
BOMBS_BESIDE = {
    "iccp.png": png(1, 1, zeros(1), chunk(b"iCCP", b"x\0\0" + zeros(200))),
    "ztxt.png": png(1, 1, zeros(1), chunk(b"zTXt", b"x\0\0" + zeros(200))),
    "itxt.png": png(1, 1, zeros(1), chunk(b"iTXt", b"x\0\1\0\0\0" + zeros(200))),
}

READ_ALL = """
import sys, warnings
from pathlib import Path
from training.errors import DataError
from training.images.read import open_picture

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

warnings.simplefilter("ignore")
before = peak()
for name in sys.argv[1:]:
    try:
        open_picture(Path(name))
    except DataError as error:
        print(error)
print(peak() - before)
"""


def test_fault_20_decompression_bombs_are_refused_and_memory_stays_flat(tmp_path: Path) -> None:
    contents = {name: content for name, (content, _) in BOMBS.items()} | BOMBS_BESIDE
    for name, content in contents.items():
        assert len(content) < 300_000
        (tmp_path / name).write_bytes(content)
    names = [str(tmp_path / name) for name in contents]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *names],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    *refusals, grown = done.stdout.splitlines()
    assert len(refusals) == len(BOMBS)
    for (name, (_, reason)), said in zip(BOMBS.items(), refusals, strict=True):
        assert said.startswith(f"{tmp_path / name}: ")
        assert reason in said
    assert int(grown) < 30, f"{grown} MiB for files of less than 0.3"
    assert done.stderr == ""


def test_fault_20_the_limit_is_of_pixels_and_can_be_set() -> None:
    content = encoded(Image.new("1", (1000, 500)), "PNG")
    assert decode_rgb(content, "x", limit_pixels=500_000).size == (1000, 500)
    with pytest.raises(DataError, match="x: 1000 x 500 is 500,000 pixels, more than the 499,999"):
        decode_rgb(content, "x", limit_pixels=499_999)


def test_fault_20_work_that_the_size_does_not_show_is_refused() -> None:
    photo = encoded(Image.new("L", (2000, 1500), 9), "JPEG", progressive=True)
    assert decode_rgb(photo, "photo").size == (2000, 1500)
    last = photo[photo.rindex(b"\xff\xda") : -2]
    scans = photo[:-2] + last * 1000 + photo[-2:]
    assert len(scans) - len(photo) < 100_000
    with pytest.raises(DataError, match=r"100\d passes over 2000 x 1500"):
        decode_rgb(scans, "scans")
    chunks = chunk(b"abCd") * PNG_CHUNKS
    with pytest.raises(DataError, match="a PNG of more than 100,000 chunks"):
        decode_rgb(png(1, 1, zeros(1), chunks), "chunks")
    # A body that goes on after the last pixel is not inflated to its end.
    assert decode_rgb(png(1, 1, zeros(200)), "long body").size == (1, 1)


STARTS = {
    "fill": (b"\xff" * 200_000, "more than 100,000 stray bytes before its first scan"),
    "junk": (b"\xff\0" + b"a" * 200_000, "more than 100,000 stray bytes before its first scan"),
    "segments": (b"\xff\xe5\0\2" * 20_000, "more than 10,000 segments"),
    "comments": (b"\xff\xfe\0\2" * 20_000, "more than 10,000 segments"),
    "within": (b"\xff\xf0" + b"\xff\xff" + b"\xff\xe5\0\2" * 20_000, "more than 10,000 segments"),
    "end": (b"\xff\xd9" + b"\xff\xe5\0\2" * 20_000, "more than 10,000 segments"),
    "exif": (b"\xff\xe1\0\x08Exif\0\0" * 50, "more than 32 EXIF segments"),
}


@pytest.mark.parametrize("kind", STARTS)
def test_fault_20_a_jpeg_of_countless_parts_is_refused(kind: str) -> None:
    start, reason = STARTS[kind]
    photo = encoded(Image.new("L", (64, 64), 9), "JPEG")
    with pytest.raises(DataError, match=f"x: a JPEG .*{reason}"):
        decode_rgb(photo[:2] + start + photo[2:], "x")
    with pytest.raises(DataError, match="x: "):
        decode_rgb(photo[:2] + start, "x")


def test_fault_20_segments_after_a_scan_count_too() -> None:
    photo = encoded(Image.new("L", (64, 64), 9), "JPEG", progressive=True)
    at = photo.rindex(b"\xff\xda")
    with pytest.raises(DataError, match="x: a JPEG of more than 10,000 segments"):
        decode_rgb(photo[:at] + b"\xff\xe5\0\2" * 20_000 + photo[at:], "x")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str
)
def test_what_follows_the_end_of_a_jpeg_is_not_looked_at(options: dict[str, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    photo = encoded(Image.fromarray(noise), "JPEG", quality=95, **options)
    expected = np.asarray(decode_rgb(photo, "photo"))
    # A phone's film of a moment: tens of FF DA occur in it by chance, or very many.
    film = b"....ftypmp42" + b"\xff\xda\0\x0c" * 200_000
    assert np.array_equal(decode_rgb(photo + film, "film"), expected)
    # Stray bytes before a marker, and markers that begin with several FF.
    at = photo.index(b"\xff\xdb")
    padded = photo[:at] + b"stray" + b"\xff" * 1000 + photo[at:]
    assert np.array_equal(decode_rgb(padded, "padded"), expected)


@pytest.mark.parametrize("kind", DISGUISES)
def test_fault_22_disguised_formats_are_refused_by_their_content(kind: str) -> None:
    with pytest.raises(DataError, match=r"a\.jpg: not an image of a known format \(JPEG, PNG"):
        decode_rgb(DISGUISES[kind], "a.jpg")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PPM", "PCX", "SGI", "JPEG2000"])
def test_fault_22_pictures_of_other_formats_are_refused(kind: str) -> None:
    content = encoded(Image.new("RGB", (32, 32), "red"), kind)
    with pytest.raises(DataError, match=r"a\.jpg: not an image of a known format"):
        decode_rgb(content, "a.jpg")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_fault_22_of_many_frames_the_first_counts_and_no_other_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), (n * 12, 255 - n * 12, 90)) for n in range(20)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    expected = np.asarray(frames[0]).astype(int)
    assert np.abs(np.asarray(decode_rgb(content, "x")) - expected).max() <= 4
    # The last frames may be broken: nobody looks at them.
    if kind in ("GIF", "PNG", "MPO"):
        cut = decode_rgb(content[: len(content) * 2 // 3], "x")
        assert np.abs(np.asarray(cut) - expected).max() <= 4


def test_an_animated_png_shows_what_a_plain_png_reader_shows() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    assert decode_rgb(content, "x").getpixel((0, 0)) == (255, 0, 0)


def test_malformed_images_are_refused_or_read_and_nothing_else() -> None:
    images = list(malformed_images(60, seed=5))
    assert images == list(malformed_images(60, seed=5))
    assert {name[5:].partition(".")[0] for name, _ in images} == set(DAMAGES)
    assert len({content for _, content in images}) > 50
    verdicts = check_images(60, seed=5)
    assert verdicts.total() == 60
    assert min(verdicts["refused"], verdicts["read"]) >= 10


def test_a_broken_exif_block_does_not_lose_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker's name that is longer than four bytes"
    whole = encoded(Image.new("RGB", (40, 20), "red"), "JPEG", exif=exif)
    assert decode_rgb(whole, "x").size == (20, 40)
    at = whole.index(b"Exif\0\0") + 6
    for length in (14, 30, 44):  # the block ends within the list of its entries, or before a value
        block = b"Exif\0\0" + whole[at : at + length]
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        picture = decode_rgb(encoded(Image.new("RGB", (40, 20), "red"), "JPEG"), "x")
        plain = encoded(picture, "JPEG")
        assert decode_rgb(plain[:2] + segment + plain[2:], "x").size in ((40, 20), (20, 40))


def test_threads_that_read_at_once_each_get_their_own_verdict() -> None:
    good = encoded(Image.new("RGB", (64, 64), "red"), "JPEG")
    bad = good[: len(good) // 2]
    wrong: list[str] = []

    def read(content: bytes, expected: bool) -> None:
        for _ in range(30):
            try:
                decode_rgb(content, "x")
                readable = True
            except DataError:
                readable = False
            if readable != expected:
                wrong.append("readable" if readable else "refused")

    before = list(warnings.filters), warnings.showwarning
    threads = [threading.Thread(target=read, args=(c, c is good)) for c in (good, bad) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (list(warnings.filters), warnings.showwarning) == before


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whoever_decodes(workers: int, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        Image.new("L", (9, 9), number).save(tmp_path / name)
    batches = [[3, 2, 1, 0], [4, 5, 6], [], [7, 11], [8, 9, 10]]
    read = list(read_batches(tmp_path, names, iter(batches), Preprocessing(size=8), workers))
    assert [batch.listed for batch in read] == batches
    found = np.concatenate([batch.pixels[:, 0, 4, 4] for batch in read])
    assert found.tolist() == [number for batch in batches for number in batch]


def test_an_endless_list_is_read_a_little_ahead(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    asked = count()
    endless = ([0] for _ in asked)
    read = read_batches(tmp_path, ["a.png"], endless, Preprocessing(size=8), workers=2)
    for _ in range(5):
        assert next(read).good == [0]
    read.close()
    assert next(asked) < 10
    assert not [one for one in threading.enumerate() if one.name.startswith("decode")]
