"""The kernel that embeds a gallery, against the float32 layers of the model themselves."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.bench import Bench, new_conditions
from benchmarks.speed.measured_calls import K, embed_picture, kernel_view, reference_view
from benchmarks.speed.row import Row
from retrieval.ranking import best

COSINE = "kernel against the torch reference: least cosine"
SAME = "kernel against the torch reference: share of queries with the same top-10"

_ROWS = 20_000  # compared, at most: the reference is slow


def kernel_rows(bench: Bench) -> list[Row]:
    """Two rows for the largest size that is not above 20,000, or the first so many images of it."""
    size = max([s for s in bench.sizes if s <= _ROWS], default=bench.sizes[0])
    engine = bench.engine(size)
    rows = np.arange(min(size, _ROWS))
    pictures = bench.pictures(engine)
    conditions = [
        *(engine.schema.value_condition(values) for values in bench.drawn(engine)),
        *new_conditions(engine.schema, 2, bench.seed + 1),
        engine.schema.type_condition(0),
        engine.schema.condition(),
    ]
    least, same, asked = 1.0, 0, 0
    for condition in conditions:
        ours, right = kernel_view(engine, condition)[rows], reference_view(engine, condition, rows)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(right, axis=1)
        least = min(least, float(((ours * right).sum(1, dtype=np.float64) / lengths).min()))
        for picture in pictures:
            z = embed_picture(engine, picture, condition)
            found = [set(best((view * z).sum(1), K).tolist()) for view in (ours, right)]
            same += found[0] == found[1]
            asked += 1
    against = "the model's float32 layers on the same stored maps"
    details: dict[str, float | int | str] = {"conditions": len(conditions), "queries": asked}
    return [
        Row(COSINE, len(rows), least, "cosine", against=against, details=details),
        Row(SAME, len(rows), same / asked, "share", against=against, details=details),
    ]
