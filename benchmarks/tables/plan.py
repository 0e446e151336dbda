"""Which runs a table needs, in the order in which they are made: all rows of a seed, then the next.

An early stop thus leaves a whole table of fewer seeds, not a few rows of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.tables.keys import Ground, evaluation_key, training_key
from benchmarks.tables.row_file import Row, RowFile, row_config
from training.run import RunConfig


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed.

    Args:
        row: the row.
        config: all options, seed included.
        likeness_only: whether combinations are ranked by likeness alone, because no loss of the
            row teaches the heads that predict values.
        training: key of the checkpoint.
        evaluation: key of what is measured on it.
    """

    row: Row
    config: RunConfig
    likeness_only: bool
    training: str
    evaluation: str


@dataclass(frozen=True)
class Setting:
    """What a table is made for: names for the tuned values, and limits for trying things out.

    Args:
        dataset: name of the dataset.
        backbone: name of the backbone.
        weights: of the backbone; None trains it from scratch.
        epochs: at most this many, or as the rows say.
        image_size: pixels instead of the base's.
    """

    dataset: str
    backbone: str
    weights: str | None
    epochs: int | None = None
    image_size: int | None = None


def plan_run(table: RowFile, row: Row, seed: int, setting: Setting, ground: Ground) -> PlannedRun:
    """One run with its keys.

    Raises:
        UsageError: the row names an unknown option or variant.
    """
    config = row_config(
        table,
        row,
        setting.dataset,
        setting.backbone,
        setting.weights,
        seed,
        setting.epochs,
        setting.image_size,
    )
    recipe = config.recipe
    likeness_only = row.floor or not (recipe.value_weight or recipe.attribute_weight)
    how = "floor" if row.floor else "likeness" if likeness_only else "engine"
    return PlannedRun(
        row,
        config,
        likeness_only,
        training_key(config, ground),
        evaluation_key(config, ground, how),
    )


def plan_runs(
    table: RowFile, rows: Sequence[Row], seeds: int, setting: Setting, ground: Ground
) -> list[PlannedRun]:
    """The runs of some rows with the seeds 0..seeds-1, in order; a floor has no seed but 0.

    Raises:
        UsageError: a row names an unknown option or variant.
    """
    return [
        plan_run(table, row, seed, setting, ground)
        for seed in range(seeds)
        for row in rows
        if seed == 0 or not row.floor
    ]
