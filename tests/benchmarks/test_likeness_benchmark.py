"""The figures of `retrieve bench likeness`, on pictures whose likeness is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.likeness import COLUMNS, markdown, measure
from benchmarks.measured_rows import MODELS, MeasuredRow
from benchmarks.tables.row_file import chosen_names
from retrieval.evaluation.scorer import FloorScorer
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.schema import Attribute, Schema

COLOUR = Attribute("colour", ("red", "blue", "green"))
LENGTH, TRIM = Attribute("length", ("short", "long")), Attribute("trim", ("lace", "fur"))
SCHEMA = Schema((COLOUR, LENGTH, TRIM))


@pytest.fixture(scope="module")
def part():
    """Eighty items of two pictures each, three colours, two lengths, two trims."""
    labels = np.full((160, 7), -1, dtype=np.int8)
    items = np.repeat(np.arange(80), 2)
    labels[np.arange(160), items % 3] = 1
    labels[np.arange(160), 3 + items // 3 % 2] = 1
    labels[np.arange(160), 5 + items // 6 % 2] = 1
    return Dataset(
        name="clusters",
        root=Path(),
        schema=SCHEMA,
        paths=[f"{row}.jpg" for row in range(160)],
        labels=labels,
        category=np.full(160, -1),
        category_names=(),
        splits=np.full(160, "test"),
        items=items,
    )


def features(part, noise):
    """What tells items apart, and a little of the colour."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(80, 16))[part.items] + noise * rng.normal(size=(160, 16))
    vectors = np.concatenate([vectors, part.labels[:, :3]], axis=1).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def row_of(vectors):
    return MeasuredRow("floor", FloorScorer(vectors), lambda condition, rows: vectors[rows])


def test_every_figure_is_measured(part):
    clear, noisy = features(part, 0.2), features(part, 1.5)
    floor = FloorScorer(noisy)
    good, bad = measure(row_of(clear), part, floor), measure(row_of(noisy), part, floor)
    names = [column.path[0] for column in COLUMNS]
    assert set(names) <= set(good)
    assert all(isinstance(good[name], float) for name in names)
    assert good["query_mrr"] == good["kept_mrr"] == 1 > bad["query_mrr"]
    # A floor pays no heed to names: what it returns has the value that is not wanted.
    assert good["violation10"] > 1 / 3
    rows = [
        {"model": "floor", "seed": 0, **bad},
        {"model": "earlier", "seed": 0, **good},
        {"model": "earlier", "seed": 1, **good, "query_mrr": 0.5},
    ]
    text = markdown({"dataset": "clusters", "split": "test", "backbone": "none", "rows": rows})
    assert "0.750 ± 0.354" in text


def test_without_items_or_embeddings(part):
    row = MeasuredRow("shop", FloorScorer(features(part, 0.2)), None)
    figures = measure(row, replace(part, items=None), row.scorer)
    assert figures["query_mrr"] is figures["all_map"] is None
    assert figures["top30"] is not None


def test_models_by_name():
    assert chosen_names("m2fashion, floor", MODELS) == ["floor", "m2fashion"]
    with pytest.raises(UsageError, match="'best'"):
        chosen_names("best", MODELS)
