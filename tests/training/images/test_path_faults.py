"""Odd paths are read or refused with a reason, never waited for (faults 26 and 27)."""

from __future__ import annotations

import os
import socket
import time
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from training.datasets.catalogue import load
from training.errors import DataError
from training.images.batches import NO_DIGEST, read_image
from training.images.preprocessing import Preprocessing
from training.images.read import NO_VERSION, file_version, open_picture, read_image_file

SMALL = Preprocessing(size=8)

NAMES = [
    "a b.jpg",
    " blanks .jpg ",
    "new\nline.jpg",
    "tab\t.jpg",
    "-rf.jpg",
    "--help",
    "back\\slash.jpg",
    "per%20cent;&'\"$`.jpg",
    "ab:c.jpg",
    "...",
    ".hidden",
    "日本 👗.jpg",
    "\u202egpj.exe",
    unicodedata.normalize("NFC", "é.jpg"),
    unicodedata.normalize("NFD", "é.jpg"),
    os.fsdecode(b"latin-\xe9.jpg"),
    "x" * 250 + ".jpg",
    "deep/" * 100 + "a.jpg",
]


def write(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.new("L", (9, 9), level).save(file, "PNG")


def test_fault_26_odd_names_are_read_each_as_its_own_file(tmp_path: Path) -> None:
    assert len({unicodedata.normalize("NFC", n) for n in NAMES}) == len(NAMES) - 1
    for level, name in enumerate(NAMES):
        write(tmp_path / name, level)
    for level, name in enumerate(NAMES):
        image = read_image(tmp_path, name, SMALL)
        assert image.reason == ""
        assert image.pixels is not None
        assert image.pixels.max() == level, name


def test_fault_26_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    for name, device in (("zero.jpg", "/dev/zero"), ("tty.jpg", "/dev/tty"), ("null", os.devnull)):
        (tmp_path / name).symlink_to(device)
    expected = {
        "pipe.jpg": "not a regular file",
        "loop.jpg": "symbolic links",
        "a": "symbolic links",
        "a/x.jpg": "symbolic links",
        "folder.jpg": "is a directory",
        ".": "is a directory",
        "empty.jpg": "empty file",
        "gone.jpg": "no such file",
        "zero.jpg": "not a regular file",
        "tty.jpg": "not a regular file",
        "null": "not a regular file",
        "empty.jpg/x": "not a directory",
        "y" * 300: "name too long",
        "z/" * 3000: "name too long",
        "nul\0.jpg": "leaves the dataset's folder",
        "surrogate\ud800.jpg": "surrogates not allowed",
    }
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    for name, reason in expected.items():
        image = read_image(tmp_path, name, SMALL)
        assert image.pixels is None
        assert reason in image.reason, name
        assert str(tmp_path) not in image.reason, "the path stands beside the reason"
        image.reason.encode()
        assert (image.digest, image.version) == (NO_DIGEST, NO_VERSION)
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_fault_26_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.jpg")
        with pytest.raises(DataError, match=r"s\.jpg: not a regular file"):
            open_picture(Path("s.jpg"))


def test_fault_26_a_pipe_that_takes_the_place_of_a_file_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "file", 1)
    os.mkfifo(tmp_path / "pipe")
    ordinary = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: ordinary)  # what it was a moment ago
    with pytest.raises(DataError, match="not a regular file"):
        read_image_file(tmp_path / "pipe")


def test_fault_26_large_files_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes, more than the 268,435,456"):
        read_image_file(tmp_path / "sparse.jpg")
    (tmp_path / "four").write_bytes(b"1234")
    assert read_image_file(tmp_path / "four", limit_bytes=4).content == b"1234"
    with pytest.raises(DataError, match="4 bytes, more than the 3"):
        read_image_file(tmp_path / "four", limit_bytes=3)


OUTSIDE = [
    "/etc/hostname",
    "//server/share/a.jpg",
    "../a.jpg",
    "a/../../b.jpg",
    "..",
    "C:/a.jpg",
    "C:a.jpg",
    "C:\\a.jpg",
    "..\\a.jpg",
    "a\\..\\..\\b.jpg",
    "\\\\server\\share\\a.jpg",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_fault_27_a_path_out_of_the_folder_is_refused_by_labels_and_by_the_reader(
    tmp_path: Path, path: str
) -> None:
    root = tmp_path / "a" / "set"
    root.mkdir(parents=True)
    for outside in ("../a.jpg", "../b.jpg", "../../b.jpg"):
        write(root / outside, 1)
    image = read_image(root, path, SMALL)
    assert image.pixels is None
    assert image.reason == "the path leaves the dataset's folder"
    (root / "labels.csv").write_text(f'image,colour\na.jpg,red\n"{path}",blue\n')
    with pytest.raises(DataError, match=r"labels\.csv, line 3: .* is not a path inside"):
        load(root)


def test_fault_26_odd_names_pass_through_labels_csv(tmp_path: Path) -> None:
    names = [n for n in NAMES if (n == n.strip() and n.isprintable()) or "\n" in n or "\u202e" in n]
    rows = "".join('"{}",red\n'.format(name.replace('"', '""')) for name in names)
    (tmp_path / "labels.csv").write_text("image,colour\n" + rows, encoding="utf-8")
    assert load(tmp_path).paths == names
    (tmp_path / "labels.csv").write_bytes(b"image,colour\nlatin-\xe9.jpg,red\n")
    assert load(tmp_path).paths == ["latin-é.jpg"]


def test_fault_25_the_version_of_a_file_changes_with_it_even_if_its_times_are_set_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    # Read at once, the file might change again within the same tick of the file system's clock.
    assert read_image_file(path).version == NO_VERSION
    time.sleep(0.15)
    before = path.stat()
    version = read_image_file(path).version
    assert version == file_version(before) != NO_VERSION
    path.write_bytes(b"4321")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert file_version(path.stat()) != version
