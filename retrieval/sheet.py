"""Sheets of pictures with captions: the contact sheet of a query, and its explanation, where the
model looked in the query's picture and in the hits."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from indexer.hold.held import Held
from retrieval.console import printable, say
from retrieval.engine import Engine
from retrieval.hits import Hit, QueryResult
from retrieval.request import Request
from training.checkpoint import CONFIG
from training.errors import DataError, ResourceError, UsageError
from training.images.read import open_picture, shown_path
from training.models.config import TIMM
from training.schema import Condition, Schema

CELL = 224
GAP = 12
LINE = 20
COLUMNS = 6
MOST_HITS = 119
"""Hits that are drawn, 20 rows: every cell takes 0.2 MB while the sheet is made."""

STRONGEST = 0.8
"""Opacity of the colour where attention is highest: the picture still shows through."""

MOST_EXPLAINED = 30
"""Hits that are explained."""

STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
"""Pixels from cell to cell after each stage, in every backbone but timm's."""

GREEN, RED, GREY, INK = "#1a7f37", "#b3261e", "#57606a", "#1f2328"

_PLASMA = np.array(
    [
        *((13, 8, 135), (75, 3, 161), (125, 3, 168), (168, 34, 150), (203, 70, 121)),
        *((229, 107, 93), (248, 148, 65), (253, 195, 40), (240, 249, 33)),
    ],
    dtype=np.float64,
)
"""Nine colours of the map `plasma` (van der Walt and Smith, matplotlib, CC0), 0 to 1 in even steps:
lightness rises evenly, so that no edge appears where the attention has none."""

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


def save_pictures(out: Path, title: str, pictures: Sequence[tuple[Path, Sequence[Line]]]) -> None:
    """Draw image files with lines below each, if there are any, in a file; raises as
    `write_picture`."""
    if pictures:
        cells = [Cell(_picture(path), lines) for path, lines in pictures]
        write_picture(draw_sheet(title, cells, min(COLUMNS, len(cells))), out, "sheet")
        say(f"sheet written to {out}")


def captions(result: QueryResult, hit: Hit | None) -> list[Line]:
    """What stands below a hit, or the query (None).

    A requested value is marked `+` where its label is known to be present, `-` where it is known
    to be absent, and `~` where it is the model's prediction; green if that is as wanted. The
    percentage is its chance, as the model sees it.
    """
    head = ("query", "") if hit is None else (f"{hit.rank}.  {hit.score:.3f}", hit.path.name)
    lines = [(text, INK) for text in head]
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


def check_sheet_name(out: Path, query: Path | None, what: str = "contact sheet") -> None:
    """Make sure, before anything is computed, that a picture can have this name: UsageError if its
    suffix names no image format, its folder is not there, or it is the query."""
    Image.init()
    if Image.EXTENSION.get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"the {what} {out} needs a name that ends in .png, .jpg or .webp")
    if not os.path.isdir(out.parent):
        raise UsageError(f"the {what} {out} needs a folder that exists: {out.parent}")
    if query is not None and os.path.realpath(out) == os.path.realpath(query):
        raise UsageError(f"the {what} {out} would overwrite the query image")


def _picture(path: Path) -> Image.Image | str:
    """The picture, fitted into a cell; small ones are shown larger than they are."""
    try:
        picture = open_picture(path, draft=CELL)
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


def overlay(picture: Image.Image, alpha: NDArray[np.floating], offset: float = 0.0) -> Image.Image:
    """Colour a picture where attention is above an even share; the rest stays as it is.

    The map, `alpha` [H, W], at least 0, lies over the whole picture, RGB, with an `offset` as of
    `receptive_offset`. It is scaled to its own peak, so pictures compare in where, not in how much:
    `peak` tells that. Where attention is even everywhere: the picture.
    """
    heat = smooth(strength(alpha), picture.size, offset)
    opacity = (STRONGEST * heat)[:, :, None]
    colours = np.stack(
        [np.interp(heat, np.linspace(0, 1, len(_PLASMA)), channel) for channel in _PLASMA.T], -1
    )
    mixed = (1 - opacity) * np.asarray(picture, dtype=np.float64) + opacity * colours
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def strength(alpha: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far each cell is above an even share of the attention, 1 at the peak: [H, W] in 0..1;
    zeros for even attention, or none."""
    over = np.asarray(alpha, dtype=np.float64)
    over = over - over.mean()
    if over.max() <= 1e-6 * np.abs(alpha).max():
        return np.zeros_like(over)
    return np.asarray(np.maximum(over / over.max(), 0.0))


def peak(alpha: NDArray[np.floating]) -> float:
    """The highest weight as a multiple of an even share: 1 for even attention, H W at most."""
    return float(np.max(alpha) / np.mean(alpha))


def receptive_offset(stride: int, side: int) -> float:
    """How far up and left of an even grid's the cells' centres lie, as a share of the side; both
    arguments in pixels. With odd kernels and symmetric padding, as in every backbone here, cell i
    looks at pixel `stride * i`, not at the middle of the i-th stretch of `stride` pixels; the same
    after cells are averaged in groups."""
    return (stride - 1) / 2 / side


def map_offset(held: Held[Any]) -> float:
    """The `receptive_offset` of the attention maps of an index's model; none for timm's, where it
    is half a cell up and left, none, or half a cell down and right, as a trunk pads."""
    model = json.loads(held.read_model(CONFIG))["model"]
    if model["backbone"].startswith(TIMM):
        return 0.0
    return receptive_offset(STRIDES[model["stage"]], held.preprocessing.size)


def smooth(
    cells: NDArray[np.float64], size: tuple[int, int], offset: float = 0.0
) -> NDArray[np.float64]:
    """Enlarge a map [H, W] to `size`, width and height, each value at the centre of its cell."""
    height, width = cells.shape
    # Framed by its own edge, so that the part that is moved in has a value.
    framed = Image.fromarray(np.pad(cells, 1, mode="edge").astype(np.float32))
    left, top = 1 + min(offset * width, 1.0), 1 + min(offset * height, 1.0)
    box = (left, top, left + width, top + height)
    enlarged = np.asarray(framed.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float64)
    return np.asarray(enlarged.clip(0.0, 1.0))  # bicubic overshoots


@dataclass(frozen=True)
class Seen:
    """A picture as the model saw it, RGB [S, S], and its attention under each condition
    [C, H, W], each map summing to 1."""

    picture: Image.Image
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """What the model saw in a query's picture, then in its first hits (of one that cannot be read
    any more, why), under conditions in words, the query's own first; `offset` as of `overlay`."""

    result: QueryResult
    conditions: tuple[str, ...]
    seen: tuple[Seen | str, ...]
    offset: float = 0.0


def conditions_of(schema: Schema, request: Request) -> tuple[Condition, ...]:
    """The query's condition, and that of each name alone if there are several: [K] int8 each."""
    alone = [schema.condition(present=[name]) for name in request.present]
    alone += [schema.condition(absent=[name]) for name in request.absent]
    alone += [schema.condition(types=[name]) for name in request.like]
    whole = schema.condition(request.present, request.absent, request.like)
    return (whole, *alone) if len(alone) > 1 else (whole,)


def explain(engine: Engine, request: Request, result: QueryResult) -> Explanation:
    """Work out the attention to a request's image file, which has to be readable, and to its first
    `MOST_EXPLAINED` hits."""
    conditions = conditions_of(engine.schema, request)
    seen: list[Seen | str] = [_look(engine, Path(str(request.image)), conditions)]
    for hit in result.hits[:MOST_EXPLAINED]:
        try:
            seen.append(_look(engine, hit.path, conditions))
        except DataError as error:
            seen.append(str(error).removeprefix(f"{shown_path(hit.path)}: "))
    names = tuple(engine.schema.describe(condition) for condition in conditions)
    offset = map_offset(engine.held)
    return Explanation(result, names, tuple(seen), offset)


def explanation_sheet(explanation: Explanation) -> Image.Image:
    """Draw an explanation: a row a picture, a column a condition; RGB. Below each map stands how
    high it peaks, as a multiple of an even share."""
    result, columns = explanation.result, 1 + len(explanation.conditions)
    cells: list[Cell | None] = []
    for hit, seen in zip((None, *result.hits), explanation.seen, strict=False):
        lines = captions(result, hit)
        if isinstance(seen, str):
            cells += [Cell(seen, lines), *[None] * (columns - 1)]
            continue
        ground = seen.picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
        cells.append(Cell(ground, lines))
        for alpha in seen.attention:
            told = (f"peak {peak(alpha):.1f} x even", GREY)
            cells.append(Cell(overlay(ground, alpha, explanation.offset), [told]))
    title = f"attention under {result.condition}{cut(result, len(explanation.seen) - 1)}"
    return draw_sheet(title, cells, columns, ("as the model sees it", *explanation.conditions))


def save_explanation(engine: Engine, request: Request, result: QueryResult, out: Path) -> None:
    """Explain the answer to a request for an image file in a file, format by its suffix; raises as
    `check_sheet_name`, `explain` and `write_picture`."""
    check_sheet_name(out, Path(str(request.image)), "explanation")
    write_picture(explanation_sheet(explain(engine, request, result)), out, "explanation")


def _look(engine: Engine, path: Path, conditions: Sequence[Condition]) -> Seen:
    """The picture after preprocessing, which the maps cover, and the model's attention to it."""
    pixels = engine.held.preprocessing.open(path)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return Seen(picture, engine.model.attention(pixels, conditions))
