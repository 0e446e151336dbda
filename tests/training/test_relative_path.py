"""Paths of label files stay inside the dataset's folder (fault 27)."""

import pytest

from training.errors import DataError
from training.files import relative_path


@pytest.mark.parametrize(
    "path",
    ["a.jpg", "img/x y/ä.jpg", "a..b/c...jpg", ".hidden/x", "ab:c.jpg", "-x.jpg", "a\nb.jpg"],
)
def test_inside(path: str) -> None:
    assert relative_path(path, "file") == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "//a",
        "../a",
        "a/../../b",
        "a/..",
        "..",
        "\\a",
        "a\\..\\b",
        "C:\\a",
        "C:/a",
        "a\0b",
    ],
)
def test_outside(path: str) -> None:
    with pytest.raises(DataError, match=r"list.txt, line 3: .* is not a path inside"):
        relative_path(path, "list.txt, line 3")
