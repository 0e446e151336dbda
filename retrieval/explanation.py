"""Where the model looked: a query and its hits, each with its attention under the condition.

One row a picture: as the model saw it, then its attention under the query's condition and, where
several names were given, under each of them alone. The model looks at the hits' own files again;
one that cannot be read any more has an empty row with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from retrieval.engine import Engine
from retrieval.hits import QueryResult, RequestedValue
from retrieval.overlay import overlay, peak, receptive_offset
from retrieval.sheet import (
    CELL,
    GAP,
    GREY,
    INK,
    LINE,
    Font,
    check_sheet_name,
    draw_marks,
    draw_missing,
    fit_text,
    write_picture,
)
from training.errors import DataError
from training.image_file import shown_path
from training.schema import Condition, Schema

MOST_HITS = 30
"""Hits that are explained."""

STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
"""Pixels from cell to cell after each stage, in every backbone."""


@dataclass(frozen=True)
class Seen:
    """A picture and the model's attention to it.

    Args:
        picture: RGB [S, S] as the model saw it.
        attention: alpha under each condition [C, H, W], each map summing to 1.
    """

    picture: Image.Image
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class Panel:
    """One picture and where the model looked in it.

    Args:
        caption: what it is, line by line.
        requested: the requested values in it.
        seen: what the model saw; if it cannot be read any more, the reason.
    """

    caption: tuple[str, ...]
    requested: tuple[RequestedValue, ...]
    seen: Seen | str


@dataclass(frozen=True)
class Explanation:
    """The query's panel first, then the hits' in their order.

    Args:
        title: the query's condition in words.
        conditions: the C conditions in words; the query's own first.
        panels: one a picture.
        offset: of the cells of the attention, as in `overlay`.
    """

    title: str
    conditions: tuple[str, ...]
    panels: tuple[Panel, ...]
    offset: float = 0.0


def conditions_of(
    schema: Schema, present: Sequence[str], absent: Sequence[str], like: Sequence[str]
) -> tuple[Condition, ...]:
    """The query's condition, and that of each name alone if there are several: [K] int8 each."""
    alone = [schema.condition(present=[name]) for name in present]
    alone += [schema.condition(absent=[name]) for name in absent]
    alone += [schema.condition(types=[name]) for name in like]
    whole = schema.condition(present, absent, like)
    return (whole, *alone) if len(alone) > 1 else (whole,)


def explain(
    engine: Engine, result: QueryResult, query: Path, conditions: Sequence[Condition]
) -> Explanation:
    """Work out the attention of a query and of its first `MOST_HITS` hits.

    Args:
        engine: the one that answered.
        result: its answer.
        query: the query's image file.
        conditions: what `conditions_of` gives for the same names.

    Raises:
        DataError: the query image cannot be read.
    """
    hits = result.hits[:MOST_HITS]
    panels = [Panel(("query", ""), result.requested, _look(engine, query, conditions))]
    for hit in hits:
        try:
            seen: Seen | str = _look(engine, hit.path, conditions)
        except DataError as error:
            seen = str(error).removeprefix(f"{shown_path(hit.path)}: ")
        caption = (f"{hit.rank}.  {hit.score:.3f}", hit.path.name)
        panels.append(Panel(caption, hit.requested, seen))
    names = tuple(engine.schema.describe(condition) for condition in conditions)
    more = f" (first {len(hits)} of {len(result)} hits)" if len(hits) < len(result) else ""
    offset = receptive_offset(STRIDES[engine.model.config.stage], engine.store.preprocessing.size)
    return Explanation(result.condition + more, names, tuple(panels), offset)


def explanation_sheet(explanation: Explanation) -> Image.Image:
    """Draw an explanation: a row a picture, a column a condition; RGB.

    Beside each row stands how high its attention peaks: as a multiple of an even share, 1 being
    attention to nothing in particular.
    """
    columns = 1 + len(explanation.conditions)
    lines = 2 + max(len(panel.requested) for panel in explanation.panels)
    head, height = 3 * LINE + GAP, CELL + LINE * lines + GAP
    size = (columns * (CELL + GAP) + GAP, head + len(explanation.panels) * height + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(16), ImageFont.load_default(14)
    title = f"attention under {explanation.title}"
    draw.text((GAP, GAP), fit_text(draw, title, font, size[0] - 2 * GAP), INK, font)
    for column, name in enumerate(("as the model sees it", *explanation.conditions)):
        text = fit_text(draw, name, small, CELL)
        draw.text((_left(column), head - LINE - 4), text, GREY if column == 0 else INK, small)
    for row, panel in enumerate(explanation.panels):
        top = head + row * height
        if isinstance(panel.seen, str):
            draw_missing(draw, GAP, top, small, panel.seen)
        else:
            _draw_seen(sheet, draw, panel.seen, explanation.offset, top, small)
        y = top + CELL + 4
        for line in panel.caption:
            draw.text((GAP, y), fit_text(draw, line, small, CELL), INK, small)
            y += LINE
        draw_marks(draw, panel.requested, GAP, y, small)
    return sheet


def save_explanation(
    engine: Engine,
    result: QueryResult,
    query: Path,
    conditions: Sequence[Condition],
    out: Path,
) -> None:
    """Explain a query in a file, format by its suffix; arguments as `explain`.

    Raises:
        UsageError: the name `out` is not one that a picture can have.
        DataError: the query image cannot be read.
        ResourceError: the file cannot be written.
    """
    check_sheet_name(out, query, "explanation")
    sheet = explanation_sheet(explain(engine, result, query, conditions))
    write_picture(sheet, out, "explanation")


def _left(column: int) -> int:
    return GAP + column * (CELL + GAP)


def _draw_seen(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, seen: Seen, offset: float, top: int, font: Font
) -> None:
    """Draw a row: the picture, then each map over it."""
    ground = seen.picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
    sheet.paste(ground, (GAP, top))
    for column, alpha in enumerate(seen.attention, start=1):
        sheet.paste(overlay(ground, alpha, offset), (_left(column), top))
        text = f"peak {peak(alpha):.1f} x even"
        draw.text((_left(column), top + CELL + 4), text, GREY, font)


def _look(engine: Engine, path: Path, conditions: Sequence[Condition]) -> Seen:
    """Let the model look at a file: the picture after preprocessing, which the maps cover, and
    its attention; raises DataError."""
    preprocessing, model = engine.store.preprocessing, engine.model
    pixels = preprocessing.open(path)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    with torch.inference_mode():
        batch = torch.from_numpy(pixels).unsqueeze(0).to(engine.device)
        maps = model.features(preprocessing.normalise(batch))
        keys = model.keys(maps)
        states = torch.from_numpy(np.stack(conditions)).float().to(engine.device)
        found = [model.attention(maps, state.unsqueeze(0), keys)[0] for state in states]
        alpha: NDArray[np.float32] = torch.stack(found).float().cpu().numpy()
    return Seen(picture, alpha)
