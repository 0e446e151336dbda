"""One training run from its options: model, source, trainer, and what is written about it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from training.batch_plans import check_shares
from training.datasets.dataset import Dataset
from training.distributed import ALONE, Processes
from training.errors import DataError, UsageError
from training.models.config import ModelConfig, from_mapping
from training.models.registry import build_model
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.run_folder import check_same_run, read_last, whole_last
from training.sources import Photographs, Source, StoredMaps
from training.train_report import Progress, TrainReport
from training.trainer import Validate, train
from training.trunk_maps import Tick


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on besides its data.

    Args:
        model: architecture.
        recipe: training options.
        preprocessing: image size and mode.
        weights: backbone weights, see `build_backbone`; None starts at random.
        seed: of every draw.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    recipe: Recipe = field(default_factory=Recipe)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    weights: str | None = None
    seed: int = 0


def read_config(path: Path) -> RunConfig:
    """Read a TOML file with the tables `[model]`, `[recipe]`, `[preprocessing]` and, at the top,
    `weights` and `seed`; all are optional.

    Raises:
        UsageError: the file is missing, malformed, or names an unknown option.
    """
    data = _read_toml(path)
    known = {"model", "recipe", "preprocessing", "weights", "seed"}
    unknown = sorted(set(data) - known)
    if unknown:
        raise UsageError(f"{path}: unknown option {unknown[0]!r}; there are {', '.join(known)}")
    tables: dict[str, dict[str, Any]] = {}
    for name in ("model", "recipe", "preprocessing"):
        tables[name] = data.get(name, {})
        if not isinstance(tables[name], dict):
            raise UsageError(f"{path}: {name} must be a table, got {tables[name]!r}")
    weights, seed = data.get("weights"), data.get("seed", 0)
    if not (weights is None or isinstance(weights, str)) or not isinstance(seed, int):
        raise UsageError(f"{path}: weights must be text and seed an integer")
    try:
        prepared = Preprocessing.from_json(Preprocessing().to_json() | tables["preprocessing"])
    except DataError as error:
        raise UsageError(f"{path}: {error}") from error
    return RunConfig(
        from_mapping(ModelConfig, tables["model"], f"{path} [model]"),
        from_mapping(Recipe, tables["recipe"], f"{path} [recipe]"),
        prepared,
        weights,
        seed,
    )


def names_freezing(path: Path) -> bool:
    """Whether a TOML file for `read_config` says if the backbone is frozen."""
    return "freeze_backbone" in _read_toml(path).get("recipe", {})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the config {path}: {error}") from error


def run_training(
    dataset: Dataset,
    config: RunConfig,
    out: Path,
    device: str,
    workers: int,
    validate: Validate,
    progress: Progress,
    tick: Tick,
    resume: bool = False,
    processes: Processes = ALONE,
) -> tuple[TrainReport, Source]:
    """Build the model, bring the data up, train, and write the checkpoints below `out`.

    Args:
        dataset: with a `train` split, and a `valid` split to choose the best epoch by.
        config: all options.
        out: the run's folder. The map cache is `cache/` beside it, so that runs share it.
        device: `cpu` or `cuda`.
        workers: decoding processes.
        validate: MAP of a model on the validation bank.
        progress: told of every step.
        tick: told of every image encoded before the first epoch of a frozen run.
        resume: go on after the last finished epoch.
        processes: which of several training together this is.

    Raises:
        UsageError: `out` holds a run and `resume` is not given, or a batch cannot be shared evenly.
        DataError: no training images, or none that has a label; nothing to resume, or what there is
            is of another run.
        ResourceError: a checkpoint cannot be written.
    """
    if whole_last(out) is not None and not resume:
        raise UsageError(
            f"{out} already holds a run; --resume goes on with it, another --out keeps both"
        )
    check_shares(config.recipe, processes.count)  # now, not after the maps are computed
    rows = dataset.rows_of("train")
    if len(rows) == 0:
        raise DataError(f"{dataset.name} has no images in its train split")
    if not dataset.labels[rows].any() and (dataset.category[rows] < 0).all():
        raise DataError(f"{dataset.name} has no labels in its train split, nothing to learn from")
    torch.manual_seed(config.seed)
    recipe = config.recipe
    if config.weights is None and recipe.freeze_norm and not recipe.freeze_backbone:
        # Batch norms that never saw data have nothing to keep.
        recipe = replace(recipe, freeze_norm=False)
    model = build_model(dataset.schema, config.model, len(dataset.category_names), config.weights)
    unfinished = read_last(out) if resume else None
    if unfinished is not None:  # now, not after the maps are computed
        check_same_run(unfinished, model, dataset, recipe, config.preprocessing, config.seed)
    model.to(device)
    source: Source
    if recipe.freeze_backbone:
        cache = out.parent / "cache"
        if not processes.first:  # one process computes the maps, the others then find them
            processes.wait()
        source = StoredMaps(
            model,
            dataset,
            config.preprocessing,
            cache,
            device,
            workers,
            tick,
            recipe,
            retry=processes.first,
        )
        if processes.first:
            processes.wait()
    else:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        source = Photographs(dataset, config.preprocessing, workers, tick)
    report = train(
        model,
        dataset,
        source,
        recipe,
        config.preprocessing,
        out,
        config.seed,
        device,
        validate,
        progress,
        unfinished,
        processes,
    )
    return report, source
