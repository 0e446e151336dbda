"""The contact sheet of a query: the query first, then hits with scores and requested values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from retrieval.hits import QueryResult, RequestedValue
from retrieval.printable import printable
from training.errors import DataError, ResourceError, UsageError
from training.images import open_rgb

CELL = 224
GAP = 12
LINE = 20
COLUMNS = 6
MOST_HITS = 119
"""Hits that are drawn, 20 rows: every cell takes 0.2 MB while the sheet is made."""

GREEN, RED, GREY, INK = "#1a7f37", "#b3261e", "#57606a", "#1f2328"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(result: QueryResult, query: Path) -> Image.Image:
    """Draw a query and its hits.

    A requested value is marked `+` where its label is known to be present, `-` where it is known
    to be absent, and `~` where it is the model's prediction; green if that is as wanted. The
    percentage is its chance, as the model sees it.

    Args:
        result: the hits.
        query: the query's image file.

    Returns:
        RGB picture of the first `MOST_HITS` hits; one whose file cannot be read any more is an
        empty frame that says so.
    """
    lines = 2 + len(result.requested)
    height = CELL + LINE * lines + GAP
    hits = result.hits[:MOST_HITS]
    cells = 1 + len(hits)
    columns = min(COLUMNS, cells)
    rows = -(-cells // columns)
    title = LINE * 2 + GAP
    size = (columns * (CELL + GAP) + GAP, title + rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(16), ImageFont.load_default(14)
    more = f" (first {len(hits)} of {len(result)} hits)" if len(hits) < len(result) else ""
    draw.text(
        (GAP, GAP), fit_text(draw, result.condition + more, font, size[0] - 2 * GAP), INK, font
    )
    for number in range(cells):
        left = GAP + (number % columns) * (CELL + GAP)
        top = title + (number // columns) * (height + GAP)
        hit = hits[number - 1] if number else None
        _paste(sheet, draw, hit.path if hit else query, left, top, small)
        if hit is None:
            draw.rectangle((left - 3, top - 3, left + CELL + 2, top + CELL + 2), None, INK, 3)
            caption, requested = ["query", ""], result.requested
        else:
            caption = [f"{hit.rank}.  {hit.score:.3f}", hit.path.name]
            requested = hit.requested
        y = top + CELL + 4
        for text in caption:
            draw.text((left, y), fit_text(draw, text, small, CELL), INK, small)
            y += LINE
        draw_marks(draw, requested, left, y, small)
    return sheet


def save_sheet(result: QueryResult, query: Path, out: Path) -> None:
    """Draw the contact sheet into a file, format by its suffix.

    Raises:
        UsageError: as `check_sheet_name`.
        ResourceError: the file cannot be written.
    """
    check_sheet_name(out, query)
    write_picture(contact_sheet(result, query), out, "contact sheet")


def write_picture(picture: Image.Image, out: Path, what: str) -> None:
    """Write a picture, format by its suffix.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        picture.save(out)
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot write the {what} {out}: {error}") from error


def check_sheet_name(out: Path, query: Path, what: str = "contact sheet") -> None:
    """Make sure that a picture can be written under this name, before anything is computed.

    Args:
        out: the name.
        query: the query's image file.
        what: the picture is, for the message.

    Raises:
        UsageError: its suffix names no image format, its folder is not there, or it is the query.
    """
    Image.init()
    if Image.EXTENSION.get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"the {what} {out} needs a name that ends in .png, .jpg or .webp")
    if not os.path.isdir(out.parent):
        raise UsageError(f"the {what} {out} needs a folder that exists: {out.parent}")
    if os.path.realpath(out) == os.path.realpath(query):
        raise UsageError(f"the {what} {out} would overwrite the query image")


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    path: Path,
    left: int,
    top: int,
    font: Font,
) -> None:
    try:
        picture = open_rgb(path, draft=CELL)
    except DataError:
        draw_missing(draw, left, top, font)
        return
    scale = CELL / max(picture.size)  # small pictures are shown larger than they are
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.LANCZOS,
        reducing_gap=3.0,
    )
    sheet.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))


def draw_missing(
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    font: Font,
    reason: str = "cannot be read any more",
) -> None:
    """Draw the empty frame of a picture that cannot be read any more."""
    draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), "#f6f8fa", GREY)
    text = fit_text(draw, reason, font, CELL - 16)
    draw.text((left + 8, top + CELL // 2), text, GREY, font)


def draw_marks(
    draw: ImageDraw.ImageDraw,
    requested: Sequence[RequestedValue],
    left: int,
    y: int,
    font: Font,
) -> None:
    """Draw the marks of requested values, one a line from `y` on, as `contact_sheet` says."""
    for value in requested:
        there = value.verdict in ("present", "predicted")
        colour = GREEN if there == value.wanted else RED
        if value.verdict == "present":
            mark = f"+ {value.name} {value.probability:.0%}"
        elif value.verdict == "absent":
            mark = f"- {value.name} {value.probability:.0%}"
        else:
            mark = f"~ {value.name} {value.probability:.0%} predicted"
        draw.text((left, y), fit_text(draw, mark, font, CELL), colour, font)
        y += LINE


def fit_text(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """The text in one line of at most `width` pixels, cut with an ellipsis where it is longer."""
    # What the font cannot draw, and a newline, which it would not measure, are escaped.
    text = printable(text).encode("ascii", "backslashreplace").decode("ascii")
    while draw.textlength(text, font) > width and len(text) > 1:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else text[:1]
    return text
