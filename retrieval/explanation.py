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
from PIL import Image

from retrieval.engine import Engine
from retrieval.hits import QueryResult
from retrieval.overlay import overlay, peak, receptive_offset
from retrieval.request import Request
from retrieval.sheet import (
    CELL,
    GREY,
    Cell,
    captions,
    check_sheet_name,
    cut,
    draw_sheet,
    write_picture,
)
from training.errors import DataError
from training.images.read import shown_path
from training.schema import Condition, Schema

MOST_EXPLAINED = 30
"""Hits that are explained."""

STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
"""Pixels from cell to cell after each stage, in every backbone."""


@dataclass(frozen=True)
class Seen:
    """A picture as the model saw it, RGB [S, S], and its attention under each condition
    [C, H, W], each map summing to 1."""

    picture: Image.Image
    attention: NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """What the model saw in a query's picture, then in its first hits.

    Args:
        result: the query's.
        conditions: the C conditions in words; the query's own first.
        seen: of the query and of each hit; of one that cannot be read any more, the reason.
        offset: of the cells of the attention, as in `overlay`.
    """

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
    """Work out the attention to a request's image file and to its first `MOST_EXPLAINED` hits.

    Raises:
        DataError: the query image cannot be read.
    """
    conditions = conditions_of(engine.schema, request)
    seen: list[Seen | str] = [_look(engine, Path(str(request.image)), conditions)]
    for hit in result.hits[:MOST_EXPLAINED]:
        try:
            seen.append(_look(engine, hit.path, conditions))
        except DataError as error:
            seen.append(str(error).removeprefix(f"{shown_path(hit.path)}: "))
    names = tuple(engine.schema.describe(condition) for condition in conditions)
    offset = receptive_offset(STRIDES[engine.model.config.stage], engine.store.preprocessing.size)
    return Explanation(result, names, tuple(seen), offset)


def explanation_sheet(explanation: Explanation) -> Image.Image:
    """Draw an explanation: a row a picture, a column a condition; RGB.

    Below each map stands how high its attention peaks: as a multiple of an even share, 1 being
    attention to nothing in particular.
    """
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
    """Explain the answer to a request for an image file in a file, format by its suffix.

    Raises:
        UsageError: the name `out` is not one that a picture can have.
        DataError: the query image cannot be read.
        ResourceError: the file cannot be written.
    """
    check_sheet_name(out, Path(str(request.image)), "explanation")
    write_picture(explanation_sheet(explain(engine, request, result)), out, "explanation")


def _look(engine: Engine, path: Path, conditions: Sequence[Condition]) -> Seen:
    """The picture after preprocessing, which the maps cover, and the model's attention to it."""
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
