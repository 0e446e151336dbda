"""Sheets of pictures with captions; the contact sheet of a query: the query first, then hits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from retrieval.console import printable
from retrieval.hits import Hit, QueryResult
from training.errors import DataError, ResourceError, UsageError
from training.images.read import open_rgb

CELL = 224
GAP = 12
LINE = 20
COLUMNS = 6
MOST_HITS = 119
"""Hits that are drawn, 20 rows: every cell takes 0.2 MB while the sheet is made."""

GREEN, RED, GREY, INK = "#1a7f37", "#b3261e", "#57606a", "#1f2328"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Line = tuple[str, str]
"""A text and its colour."""


@dataclass(frozen=True)
class Cell:
    """A picture of at most `CELL` a side, or why there is none; the lines below it; a frame."""

    picture: Image.Image | str
    lines: Sequence[Line]
    framed: bool = False


def draw_sheet(
    title: str, cells: Sequence[Cell | None], columns: int, heads: Sequence[str] = ()
) -> Image.Image:
    """Draw cells row by row under a title, and a head above each column; RGB."""
    pitch = CELL + LINE * max(len(cell.lines) for cell in cells if cell) + 2 * GAP
    top_of_all = LINE * (3 if heads else 2) + GAP
    rows = -(-len(cells) // columns)
    size = (columns * (CELL + GAP) + GAP, top_of_all + rows * pitch + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(16), ImageFont.load_default(14)
    draw.text((GAP, GAP), fit_text(draw, title, font, size[0] - 2 * GAP), INK, font)
    for column, head in enumerate(heads):
        place = GAP + column * (CELL + GAP), top_of_all - LINE - 4
        draw.text(place, fit_text(draw, head, small, CELL), INK if column else GREY, small)
    for number, cell in enumerate(cells):
        if cell is None:
            continue
        left = GAP + (number % columns) * (CELL + GAP)
        top = top_of_all + (number // columns) * pitch
        if isinstance(cell.picture, str):
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), "#f6f8fa", GREY)
            text = fit_text(draw, cell.picture, small, CELL - 16)
            draw.text((left + 8, top + CELL // 2), text, GREY, small)
        else:
            width, height = cell.picture.size
            sheet.paste(cell.picture, (left + (CELL - width) // 2, top + (CELL - height) // 2))
        if cell.framed:
            draw.rectangle((left - 3, top - 3, left + CELL + 2, top + CELL + 2), None, INK, 3)
        for line, (text, colour) in enumerate(cell.lines):
            place = left, top + CELL + 4 + line * LINE
            draw.text(place, fit_text(draw, text, small, CELL), colour, small)
    return sheet


def contact_sheet(result: QueryResult, query: Path) -> Image.Image:
    """Draw a query's image file and its first `MOST_HITS` hits, marked as `captions` says.

    One whose file cannot be read any more is an empty frame that says so.
    """
    hits = result.hits[:MOST_HITS]
    cells = [Cell(_picture(query), captions(result, None), True)]
    cells += [Cell(_picture(hit.path), captions(result, hit)) for hit in hits]
    title = result.condition + cut(result, len(hits))
    return draw_sheet(title, cells, min(COLUMNS, len(cells)))


def captions(result: QueryResult, hit: Hit | None) -> list[Line]:
    """What stands below a hit, or the query.

    A requested value is marked `+` where its label is known to be present, `-` where it is known
    to be absent, and `~` where it is the model's prediction; green if that is as wanted. The
    percentage is its chance, as the model sees it.
    """
    lines = [("query", INK), ("", INK)]
    if hit is not None:
        lines = [(f"{hit.rank}.  {hit.score:.3f}", INK), (hit.path.name, INK)]
    for value in (result if hit is None else hit).requested:
        mark = {"present": "+", "absent": "-"}.get(value.verdict, "~")
        text = f"{mark} {value.name} {value.probability:.0%}" + " predicted" * (mark == "~")
        lines.append((text, GREEN if value.fits else RED))
    return lines


def cut(result: QueryResult, shown: int) -> str:
    """Says that not all hits are drawn, if so."""
    return f" (first {shown} of {len(result)} hits)" if shown < len(result) else ""


def write_picture(picture: Image.Image, out: Path, what: str) -> None:
    """Write a picture, format by its suffix; ResourceError if it cannot be written."""
    try:
        picture.save(out)
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot write the {what} {out}: {error}") from error


def check_sheet_name(out: Path, query: Path, what: str = "contact sheet") -> None:
    """Make sure that a picture can be written under this name, before anything is computed.

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


def _picture(path: Path) -> Image.Image | str:
    """The picture, fitted into a cell; small ones are shown larger than they are."""
    try:
        picture = open_rgb(path, draft=CELL)
    except DataError:
        return "cannot be read any more"
    scale = CELL / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def fit_text(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """The text in one line of at most `width` pixels, cut with an ellipsis where it is longer."""
    # What the font cannot draw, and a newline, which it would not measure, are escaped.
    text = printable(text).encode("ascii", "backslashreplace").decode("ascii")
    while draw.textlength(text, font) > width and len(text) > 1:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else text[:1]
    return text
