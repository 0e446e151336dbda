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
from benchmarks.rivals.adde import AddeScorer, block_embed, predicted_values, train_adde, unit
from benchmarks.tables.row_file import WHOLE
from benchmarks.tables.summary import TITLES, which
from retrieval.evaluation.attribute_map import Embed
from retrieval.evaluation.encoded_split import EncodedSplit
from retrieval.evaluation.scorer import DescriptorScorer, FloorScorer, Scorer, floor_embed
from retrieval.tags import thresholds
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.descriptor import Floats
from training.errors import DataError
from training.schema import Schema
from training.sources import validation_rows

MODELS = tuple(name for name in TITLES if name != "earlier")
"""Those that are measured; version 0.1's rows stay as the commit that they name measured them."""


@dataclass(frozen=True)
class MeasuredRow:
    """One model, of `TITLES`, as a scorer of a split's rows, and its embeddings if it has them;
    `has_dial` says whether the scorer's dial does anything."""

    model: str
    scorer: Scorer
    embed: Embed | None
    embed_queries: Embed | None = None
    has_dial: bool = False


class ShopScorer(Scorer):
    """What shops do: tag every picture once, filter by the tags, sort by generic likeness.

    Pictures whose predicted tags fit all that is named come first, then those that fit all but
    one, and so on; among equals the nearest by generic features [N, F], standardised on train. The
    tags are `predicted_values` of the chances [N, K] by thresholds [K]; the query's own other tags
    are no filters.
    """

    ranked_by = "tag, filter, nearest: predicted tags that fit, then cosine of pooled features"

    def __init__(
        self, schema: Schema, chances: Floats, features: Floats, least: Floats | None = None
    ) -> None:
        self._tags = predicted_values(chances, schema, least)
        self._unit = unit(features)

    def whole(self, query: int) -> Floats:
        """Cosine of the features, [N]."""
        return np.asarray(self._unit @ self._unit[query], dtype=np.float32)

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """Three times the number of names that fit, and the cosine: [N]."""
        has = self._tags[:, list(wanted)].sum(axis=1)
        lacks = (~self._tags[:, list(unwanted)]).sum(axis=1)
        return np.asarray(3 * (has + lacks) + self.whole(query), dtype=np.float32)


def measured_rows(
    models: Sequence[str],
    loaded: Checkpoint,
    encoded: EncodedSplit,
    train: Dataset,
    bench: WorkBench,
    seed: int,
) -> Iterator[MeasuredRow]:
    """Each of the models on a split that `loaded`, the trained M2Fashion, has encoded.

    All rows see its backbone's features, the shop its chances; ADDE-M is trained with the seed on
    `train`, the checkpoint's dataset, which the features' scale is of as well.
    """
    part, bank, schema = encoded.dataset, encoded.bank, loaded.schema
    if "floor" in models:
        yield MeasuredRow("floor", FloorScorer(bank.pooled), floor_embed(bank))
    if set(models) - {"floor", "m2fashion"}:
        pool = partial(pooled_stages, loaded, bench)
        rows, held_out = train.rows_of("train"), validation_rows(train)
        seen = pool(train, np.union1d(rows, held_out), "pooling, train")
        rows, held_out = (np.intersect1d(some, seen.rows) for some in (rows, held_out))
        scale = Scale.of(seen.of(rows))
        features = scale.standardise(pool(part, part.rows_of("all"), "pooling").features)
        if "shop" in models:
            least = thresholds(loaded.training, schema)
            yield MeasuredRow("shop", ShopScorer(schema, bank.chances, features, least), None)
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
    """New rows and those of `file`, if it is there, that are of another model, variant or seed, in
    the order of tables; none of a file with another `ground`, the hash of what is measured on.

    Raises DataError: the file is no result.
    """

    def place(row: Data) -> tuple[int, bool, str, int]:
        model, variant = which(row)
        return list(TITLES).index(model), variant != WHOLE, variant, row["seed"]

    made = {place(row): row for row in rows}
    if file.is_file():
        try:
            found = json.loads(file.read_text())
            kept = found["rows"] if found["ground"] == ground else []
            made = {place(row): row for row in kept} | made
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no result to add rows to: {error!r}; remove it") from error
    return [made[key] for key in sorted(made)]
