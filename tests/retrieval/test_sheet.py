"""The contact sheet, cell by cell, from hits made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from retrieval.hits import Hit, QueryResult, RequestedValue, Verdict
from retrieval.sheet import (
    CELL,
    COLUMNS,
    GAP,
    LINE,
    MOST_HITS,
    check_sheet_name,
    contact_sheet,
    write_picture,
)
from training.errors import ResourceError, UsageError

GREEN, RED = (np.array(ImageColor.getrgb(colour)) for colour in ("#1a7f37", "#b3261e"))


def value(verdict: Verdict, wanted: bool = True, name: str = "floral") -> RequestedValue:
    return RequestedValue(name, wanted, verdict, 0.7)


def result(paths: list[Path], requested: list[tuple[RequestedValue, ...]]) -> QueryResult:
    hits = tuple(
        Hit(rank, 1 / rank, 0.5, path, path.name, rank, {}, {}, values)
        for rank, (path, values) in enumerate(zip(paths, requested, strict=True), start=1)
    )
    own = requested[0] if requested else ()
    return QueryResult("q.png", "floral", own, {}, hits, len(hits), len(hits))


def noise(path: Path, seed: int, size: tuple[int, int] = (CELL, 48)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def place(number: int, values: int, cells: int) -> tuple[int, int]:
    """Left and top of a cell's picture."""
    columns = min(COLUMNS, cells)
    height = CELL + LINE * (2 + values) + 2 * GAP
    return (
        GAP + number % columns * (CELL + GAP),
        2 * LINE + GAP + number // columns * height,
    )


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 13])
@pytest.mark.parametrize("values", [0, 2])
def test_size_and_pictures_in_order(tmp_path: Path, count: int, values: int) -> None:
    query = noise(tmp_path / "q.png", 99)
    paths = [noise(tmp_path / f"{n}.png", n, (CELL, 64 - n)) for n in range(count)]
    requested = [tuple(value("present") for _ in range(values))] * count
    sheet = contact_sheet(result(paths, requested), query)
    drawn = values if count else 0
    columns, rows = min(COLUMNS, count + 1), -(-(count + 1) // COLUMNS)
    assert sheet.size == (
        columns * (CELL + GAP) + GAP,
        2 * LINE + GAP + rows * (CELL + LINE * (2 + drawn) + 2 * GAP) + GAP,
    )
    pixels = np.asarray(sheet)
    for number, path in enumerate([query, *paths]):
        left, top = place(number, drawn, count + 1)
        with Image.open(path) as picture:
            left += (CELL - picture.width) // 2
            top += (CELL - picture.height) // 2
            there = pixels[top : top + picture.height, left : left + picture.width]
            np.testing.assert_array_equal(there, np.asarray(picture))
    frame = pixels[place(0, drawn, count + 1)[1] - 2, GAP : GAP + CELL]
    assert (frame == frame[0]).all()
    assert frame[0].sum() < 150  # the query alone has a dark frame
    if count:
        left, top = place(1, drawn, count + 1)
        assert (pixels[top - 2, left + 4 : left + CELL] == 255).all() or count + 1 > COLUMNS


@pytest.mark.parametrize("size", [(8, 4), (4, 8), (900, 450), (1, 3000)])
def test_pictures_of_any_size_fill_their_cell(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "q.png")
    pixels = np.asarray(contact_sheet(result([], []), tmp_path / "q.png"))
    left, top = place(0, 0, 1)
    cell = pixels[top : top + CELL, left : left + CELL]
    green = (cell == (10, 200, 30)).all(-1)
    width, height = (max(1, round(CELL * side / max(size))) for side in size)
    assert (green.any(0).sum(), green.any(1).sum()) == (width, height)


@pytest.mark.parametrize(
    ("verdict", "wanted", "green"),
    [
        ("present", True, True),
        ("absent", True, False),
        ("predicted", True, True),
        ("predicted-absent", True, False),
        ("present", False, False),
        ("absent", False, True),
        ("predicted", False, False),
        ("predicted-absent", False, True),
    ],
)
def test_marks_are_green_as_wanted_and_red_otherwise(
    tmp_path: Path, verdict: Verdict, wanted: bool, green: bool
) -> None:
    path = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), "grey").save(path)
    other = value("absent" if green == wanted else "present", wanted, "other")
    sheet = contact_sheet(result([path], [(value(verdict, wanted), other)]), path)
    pixels = np.asarray(sheet).astype(int)
    left, top = place(1, 2, 2)
    first = top + CELL + 4 + 2 * LINE
    for line, colour, not_there in ((0, GREEN, RED), (1, RED, GREEN)):
        if not green:
            colour, not_there = not_there, colour
        area = pixels[first + line * LINE : first + (line + 1) * LINE, left : left + CELL]
        assert (np.abs(area - colour).sum(-1) == 0).sum() > 10, (line, verdict)
        assert (np.abs(area - not_there).sum(-1) == 0).sum() == 0


@pytest.mark.parametrize(
    "name", ["gone.png", "two\nlines.png", "blå 旗袍.png", "\x1b[2J\udcff.png"]
)
def test_a_hit_that_vanished_is_an_empty_frame(tmp_path: Path, name: str) -> None:
    query = noise(tmp_path / "q.png", 1)
    there = noise(tmp_path / "there.png", 2)
    values = (value("present", name="a\nb" * 40),)
    sheet = contact_sheet(result([tmp_path / name, there], [values] * 2), query)
    pixels = np.asarray(sheet)
    left, top = place(1, 1, 3)
    assert tuple(pixels[top, left]) == ImageColor.getrgb("#57606a")
    left, top = place(2, 1, 3)
    middle = pixels[top + (CELL - 48) // 2 :, left:][:48, :CELL]
    with Image.open(there) as picture:
        np.testing.assert_array_equal(middle, np.asarray(picture))
    bytes_ = tmp_path / "broken.png"
    bytes_.write_bytes(b"no picture")
    contact_sheet(result([bytes_], [values]), bytes_)


def test_a_large_photograph_is_fitted_in(tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    Image.new("RGB", (900, 300), (10, 200, 30)).save(big)
    pixels = np.asarray(contact_sheet(result([big], [()]), big))
    left, top = place(1, 0, 2)
    cell = (pixels[top : top + CELL, left : left + CELL] == (10, 200, 30)).all(-1)
    rows, columns = np.nonzero(cell)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (75, CELL)
    assert rows.min() == pytest.approx((CELL - 75) / 2, abs=1)


def test_very_many_hits_are_cut(tmp_path: Path) -> None:
    query = noise(tmp_path / "q.png", 1)
    sheet = contact_sheet(result([query] * 500, [()] * 500), query)
    assert sheet.height < (MOST_HITS // COLUMNS + 2) * (CELL + 2 * LINE + 2 * GAP)


def test_the_file_is_of_the_format_that_its_name_says(tmp_path: Path) -> None:
    query = noise(tmp_path / "q.png", 1)
    for name in ("out.png", "out.JPG", "out.webp"):
        write_picture(contact_sheet(result([query], [()]), query), tmp_path / name, "sheet")
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (2 * (CELL + GAP) + GAP, 2 * LINE + CELL + 2 * LINE + 4 * GAP)


@pytest.mark.parametrize("name", ["out", "out.txt", "out.png.bak", ".png", "none/out.png", ""])
def test_a_name_that_no_sheet_can_have(tmp_path: Path, name: str) -> None:
    query = noise(tmp_path / "q.png", 1)
    with pytest.raises(UsageError, match="contact sheet"):
        check_sheet_name(tmp_path / name, query)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.png"]


def test_the_query_image_is_not_overwritten(tmp_path: Path) -> None:
    query = noise(tmp_path / "q.png", 1)
    (tmp_path / "link.png").symlink_to(query)
    for name in ("q.png", "link.png", "../" + tmp_path.name + "/q.png"):
        with pytest.raises(UsageError, match="overwrite"):
            check_sheet_name(tmp_path / name, query)


def test_a_sheet_that_cannot_be_written(tmp_path: Path) -> None:
    query = noise(tmp_path / "q.png", 1)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ResourceError, match=r"folder\.png"):
        write_picture(contact_sheet(result([query], [()]), query), tmp_path / "folder.png", "sheet")
