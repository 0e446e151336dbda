"""A picture by every door: the same pixels, the same limits, the same words."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from training.errors import DataError, UsageError
from training.images import read
from training.images.read import content_of, is_url, open_picture

SCENE = np.zeros((240, 400, 3), np.uint8)
SCENE[:120, :200] = (220, 40, 60)
SCENE[120:, :200] = (40, 200, 90)
SCENE[:, 200:] = np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(SCENE), kind, exif=exif, quality=95)


def doors(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    at_its_end = io.BytesIO(content)
    at_its_end.seek(0, io.SEEK_END)
    upload = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    upload.write(content)
    decoded = Image.open(path)
    decoded.load()
    return {
        "str": str(path),
        "Path": path,
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "BytesIO": io.BytesIO(content),
        "BytesIO at its end": at_its_end,
        "open file": path.open("rb"),
        "upload": upload,
        "no seek": Pipe(content),
        "PIL": Image.open(path),
        "PIL of bytes": Image.open(io.BytesIO(content)),
        "PIL, decoded": decoded,
    }


class Pipe:
    """Gives a few bytes at a time and cannot go back, as an answer from the web."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def read(self, size: int = -1) -> bytes:
        part, self._rest = self._rest[: min(size, 1000)], self._rest[min(size, 1000) :]
        return part


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_door_gives_the_same_upright_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"phone.{kind.lower()}"
    path.write_bytes(turned(kind))
    wanted = np.asarray(open_picture(path))
    assert wanted.shape == (400, 240, 3)
    assert np.abs(wanted.astype(int) - np.rot90(SCENE, -1)).mean() < 4
    for name, source in doors(path).items():
        for _ in range(1 if name == "no seek" else 2):  # reading leaves a source as it was
            np.testing.assert_array_equal(np.asarray(open_picture(source)), wanted, err_msg=name)
        if name.startswith("PIL"):
            assert source.convert("RGB").size in ((400, 240), (240, 400))  # and it still decodes


def test_what_was_turned_already_is_not_turned_again() -> None:
    content = turned("JPEG")
    for again in (turned("JPEG", 1), encoded(open_picture(content), "PNG")):
        assert open_picture(again).size == open_picture(Image.open(io.BytesIO(again))).size
    image = Image.open(io.BytesIO(content))
    frame = image.rotate(0).crop((0, 0, 300, 200))  # Pillow keeps the EXIF block beside the pixels
    assert open_picture(frame).size == (200, 300)


def test_a_large_jpeg_is_drafted_by_every_door(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(SCENE).resize((3200, 1600)).save(path)
    wanted = np.asarray(open_picture(path, draft=100))
    assert wanted.shape == (200, 400, 3)
    for source in (path.read_bytes(), path.open("rb"), Image.open(path)):
        np.testing.assert_array_equal(np.asarray(open_picture(source, draft=100)), wanted)


def test_the_content_of_a_file_is_known_by_every_door_and_that_of_pixels_by_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(turned("JPEG"))
    for name, source in doors(path).items():
        pixels = name == "PIL, decoded"
        assert content_of(source) == (None if pixels else path.read_bytes()), name
    assert content_of(SCENE) is None


ARRAYS = {
    "rgb": SCENE,
    "view": SCENE[::-1, ::-1],
    "grey": SCENE[..., 0],
    "rgba": np.dstack([SCENE, SCENE[..., 0]]),
    "float32": SCENE.astype(np.float32) / 255,
    "float64": SCENE / 255,
    "float16": (SCENE / 255).astype(np.float16),
    "big endian": (SCENE / 255).astype(">f4"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    array = ARRAYS[name]
    wanted = array.astype(float) * (255 if array.dtype.kind == "f" else 1)
    if name == "grey":
        wanted = wanted[..., None]
    elif name == "rgba":
        alpha = wanted[..., 3:] / 255
        wanted = wanted[..., :3] * alpha + 255 * (1 - alpha)
    before = array.copy()
    found = open_picture(array, draft=100)
    assert (found.mode, found.size) == ("RGB", (400, 240))
    assert np.abs(np.asarray(found) - wanted).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "error", "reason"),
    [
        (np.zeros((3, 9, 9), np.uint8), UsageError, r"uint8 \[3, 9, 9\]: pixels are \[H, W, 3\]"),
        (np.zeros((1, 9, 9, 3), np.uint8), UsageError, r"\[1, 9, 9, 3\]"),
        (np.zeros(9, np.uint8), UsageError, r"\[9\]"),
        (np.zeros((9, 9, 3), np.int64), UsageError, "int64 .* uint8, or floats"),
        (np.zeros((9, 9), np.bool_), UsageError, "bool"),
        (np.zeros((9, 9, 3), np.uint16), UsageError, "uint16"),
        (np.zeros((9, 9, 3), object), UsageError, "object"),
        (np.full((9, 9, 3), 255.0), DataError, r"from 0 to 1, got 255.0\.\.255.0"),
        (np.full((9, 9, 3), -0.1), DataError, "from 0 to 1"),
        (np.full((9, 9, 3), np.nan), DataError, "from 0 to 1"),
        (np.zeros((0, 9, 3), np.uint8), DataError, "0 pixels"),
        (np.broadcast_to(np.uint8(0), (8000, 8000)), DataError, "64,000,000 pixels"),
    ],
    ids=str,
)
def test_arrays_that_are_no_picture(array: np.ndarray, error: type, reason: str) -> None:
    with pytest.raises(error, match=reason):
        open_picture(array)


async def _asynchronous(size: int = -1) -> bytes:
    return b""


class _Upload:
    read = staticmethod(_asynchronous)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "source",
    [None, 7, [1, 2], {"a": 1}, object(), io.StringIO("text"), _Upload()],
    ids=lambda source: type(source).__name__,
)
def test_anything_else_is_told_what_may_be_given(source: object) -> None:
    with pytest.raises(UsageError, match="a path, the bytes of a file, an open binary file, a PIL"):
        open_picture(source)  # type: ignore[arg-type]


def test_bytes_obey_the_limits_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = turned("JPEG")
    closed = io.BytesIO(whole)
    closed.close()
    with Image.open(io.BytesIO(whole)) as left:
        pass
    for source, reason in (
        (b"", "the picture: no bytes"),
        (io.BytesIO(), "the picture: no bytes"),
        (b"<html>", "the picture: not an image of a known format"),
        (whole[:-300], "the picture: broken image: .*truncated"),
        (Image.open(io.BytesIO(whole[:-300])), "the picture: broken image: .*truncated"),
        (closed, "the picture: cannot be read: .*closed"),
        (left, "the picture: .*"),
        (Image.new("RGB", (0, 5)), "0 x 5 is 0 pixels"),
        (Image.new("1", (8000, 8000)), "64,000,000 pixels, more than the 50,000,000"),
    ):
        with pytest.raises(DataError, match=reason):
            open_picture(source)
    monkeypatch.setattr(read, "BYTE_LIMIT", 1000)
    for source in (whole, io.BytesIO(whole), Pipe(whole)):
        with pytest.raises(DataError, match="more than the 1,000 bytes"):
            open_picture(source)


@pytest.mark.parametrize(
    "text",
    [
        "http://shop.example/a.jpg",
        "HTTPS://shop.example/a.jpg?w=3",
        " https://shop.example/a.jpg",
        "s3://bucket/a.jpg",
        "gs://bucket/a.jpg",
        "ftp://host/a.jpg",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_nothing_is_fetched_from_the_web(text: str) -> None:
    assert is_url(text)
    with pytest.raises(DataError, match="nothing is fetched from the web: download the picture"):
        open_picture(text)
    if ":/" in text:
        with pytest.raises(DataError, match="nothing is fetched"):
            open_picture(Path(text.strip()))  # which makes one slash of two


@pytest.mark.parametrize(
    "text", ["a.jpg", "/a/b.jpg", "C:/a.jpg", "C:\\a.jpg", "a:b.jpg", "http.jpg", "data/a.jpg", ""]
)
def test_paths_are_no_urls(text: str) -> None:
    assert not is_url(text)


WRITE_HEIC = """
import sys, pillow_heif
from PIL import Image
pillow_heif.register_heif_opener()
exif = Image.Exif()
exif[0x0112] = int(sys.argv[3])
Image.open(sys.argv[1]).save(sys.argv[2], exif=exif.tobytes(), quality=95)
"""
READ_WITHOUT = """
import sys
sys.modules["pillow_heif"] = None
from training.images.read import open_picture
try:
    open_picture(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    folder = Path(__file__).parents[3]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_upright(tmp_path: Path, orientation: int) -> None:
    pytest.importorskip("pillow_heif")
    heic = tmp_path / "a.heic"
    Image.fromarray(SCENE).save(tmp_path / "a.png")
    run(WRITE_HEIC, tmp_path / "a.png", heic, orientation)
    wanted = SCENE if orientation == 1 else np.rot90(SCENE, -1)
    for source in (heic, heic.read_bytes()):
        found = np.asarray(open_picture(source))
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).mean() < 4
    assert "HEIF" not in Image.OPEN  # nothing is registered with Pillow
    with pytest.raises(DataError, match="broken image"):
        open_picture(heic.read_bytes()[:200])
    said = run(READ_WITHOUT, heic)
    assert said.startswith("DataError ")
    assert 'a.heic: HEIC, which needs pip install "m2fashion-retrieval[heic]"' in said


def test_avif_is_read_where_pillow_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = turned("AVIF")
    found = np.asarray(open_picture(content)).astype(int)
    assert found.shape == (400, 240, 3)
    assert np.abs(found - np.asarray(open_picture(turned("JPEG"))).astype(int)).mean() < 4
    monkeypatch.setattr(features, "modules", {})
    with pytest.raises(DataError, match="AVIF, which this Pillow does not read"):
        open_picture(content)
