"""The models that are compared in rows, each as a scorer of one split, and files of such rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import Data, WorkBench
from benchmarks.pooled_features import Scale, pooled_stages
from benchmarks.rivals.adde import AddeScorer, block_embed, train_adde
from benchmarks.rivals.shop import ShopScorer
from benchmarks.tables.row_file import WHOLE
from benchmarks.tables.summary import TITLES, which
from retrieval.evaluation.attribute_map import Embed
from retrieval.evaluation.encoded_split import EncodedSplit
from retrieval.evaluation.scorer import DescriptorScorer, FloorScorer, Scorer, floor_embed
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.sources import validation_rows

MODELS = tuple(name for name in TITLES if name != "earlier")
"""Those that are measured; version 0.1's rows stay as the commit that they name measured them."""


@dataclass(frozen=True)
class MeasuredRow:
    """One model on one split.

    Args:
        model: its name, of `TITLES`.
        scorer: over the split's rows.
        embed: its embeddings under a type condition; None if it has none.
        embed_queries: those of the queries where they are made in another way.
        has_dial: whether the scorer's dial does anything.
    """

    model: str
    scorer: Scorer
    embed: Embed | None
    embed_queries: Embed | None = None
    has_dial: bool = False


def measured_rows(
    models: Sequence[str],
    loaded: Checkpoint,
    encoded: EncodedSplit,
    train: Dataset,
    bench: WorkBench,
    seed: int,
) -> Iterator[MeasuredRow]:
    """Each model on the encoded split, one after the other.

    Args:
        models: which, of `MODELS`.
        loaded: the trained M2Fashion; all rows see its backbone's features, the shop its chances.
        encoded: its maps of the split that is measured.
        train: dataset that the checkpoint was trained on, for ADDE-M and the features' scale.
        bench: its folder of work holds `runs/cache`, the backbone's maps.
        seed: of ADDE-M.
    """
    part, bank, schema = encoded.dataset, encoded.bank, loaded.schema
    if "floor" in models:
        yield MeasuredRow("floor", FloorScorer(bank.pooled), floor_embed(bank))
    if set(models) - {"floor", "m2fashion"}:
        pool = partial(
            pooled_stages,
            loaded.model,
            preprocessing=loaded.preprocessing,
            cache=bench.cache,
            workers=bench.workers,
        )
        rows, held_out = train.rows_of("train"), validation_rows(train)
        seen = pool(train, np.union1d(rows, held_out), title="pooling, train")
        rows, held_out = (np.intersect1d(some, seen.rows) for some in (rows, held_out))
        scale = Scale.of(seen.of(rows))
        features = scale.standardise(pool(part, part.rows_of("all"), title="pooling").features)
        if "shop" in models:
            yield MeasuredRow("shop", ShopScorer(schema, bank.chances, features), None)
        if set(models) & {"adde", "adde-predicted"}:
            taught, valid = (
                (scale.standardise(seen.of(some)), train.labels[some]) for some in (rows, held_out)
            )
            adde = train_adde(schema, taught, valid, seed)
            for model, told in (("adde", True), ("adde-predicted", False)):
                if model in models:
                    scorer = AddeScorer(adde, features, part.labels, told)
                    yield MeasuredRow(model, scorer, block_embed(adde, features))
    if "m2fashion" in models:
        own = DescriptorScorer.of(bank, schema)
        yield MeasuredRow("m2fashion", own, own.embed, own.embed_queries, has_dial=True)


def with_kept_rows(file: Path, rows: Sequence[Data], ground: str) -> list[Data]:
    """New rows and those of `file` that are of another model, variant or seed, in the order of
    tables.

    Args:
        file: of the result, if there is one.
        rows: as measured now.
        ground: hash of what they were measured on, the field `ground` of a result; rows of a file
            with another one are not kept.

    Raises:
        DataError: the file is there but is no result.
    """
    measured = {(*which(row), row["seed"]) for row in rows}
    kept: list[Data] = []
    if file.is_file():
        try:
            found = json.loads(file.read_text())
            kept = found["rows"] if found["ground"] == ground else []
            kept = [row for row in kept if (*which(row), row["seed"]) not in measured]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no result to add rows to: {error!r}; remove it") from error
    order = list(TITLES)

    def place(row: Data) -> tuple[int, bool, str, int]:
        model, variant = which(row)
        return order.index(model), variant != WHOLE, variant, row["seed"]

    return sorted([*rows, *kept], key=place)
