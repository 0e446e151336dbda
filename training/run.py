"""One training run from its options: model, source, trainer, and what is written about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.export import export_checkpoint, load_exporters, sample_pictures
from training.images.batches import Reading
from training.models.config import build_model, model_class
from training.models.embedder import LABELLED
from training.recipe import RunConfig
from training.report import Progress, TrainReport
from training.resume import check_same_run, read_last, run_identity, whole_last
from training.sampling import check_shares
from training.schema import Schema
from training.sources import Photographs, Source, StoredMaps
from training.trainer import Setting, Trainer
from training.validated import read_toml, validated

__all__ = ["RunConfig", "Setting", "named_in", "read_config", "run_training"]


def read_config(path: Path) -> RunConfig:
    """Read a TOML file with the tables `[model]`, `[recipe]`, `[preprocessing]` and, at the top,
    `weights` and `seed`; all are optional. Raises UsageError."""
    return validated(RunConfig, read_toml(path), str(path))


def named_in(path: Path, table: str) -> set[str]:
    """The options that a TOML file for `read_config` names in a table of it."""
    return set(read_toml(path).get(table, {}))


def run_training(
    dataset: Dataset,
    config: RunConfig,
    out: Path,
    setting: Setting | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Build the model, train it on the `train` split of a dataset, choosing the best epoch by its
    `valid` split, write `out/best` and `out/last.pt`, and export `out/best`, also of a run that was
    finished before, see `training/export.py`.

    The map cache is `cache/` beside `out`, so that runs share it.

    Raises:
        UsageError: `out` holds a run and it is not to be resumed, or a batch cannot be shared
            evenly.
        DataError: no training images, or none that has a label; nothing to resume, or what there is
            is of another run; a loss that is not finite; no training image can be read any more.
        ResourceError: a checkpoint cannot be written or exported.
    """
    setting, progress = setting or Setting(), progress or Progress()
    processes = setting.processes
    if whole_last(out) is not None and not setting.resume:
        raise UsageError(
            f"{out} already holds a run; --resume goes on with it, another --out keeps both"
        )
    check_shares(config.recipe, processes.count)  # now, not after the maps are computed
    rows = dataset.rows_of("train")
    if len(rows) == 0:
        raise DataError(f"{dataset.name} has no images in its train split")
    if not dataset.labels[rows].any() and (dataset.category[rows] < 0).all():
        raise DataError(f"{dataset.name} has no labels in its train split, nothing to learn from")
    kind = model_class(config.model.architecture)
    if kind.needs_landmarks and not dataset.has_landmarks("train"):
        raise DataError(
            f"{kind.title} learns from landmarks, and {dataset.name} has none in its train split; "
            "choose another --variant, or add the list of landmarks that the dataset comes with"
        )
    exports = config.model.architecture == "m2fashion" and dataset.schema.size > 0
    if exports:
        load_exporters()  # now: that it cannot be done should not be found after the last epoch
    torch.manual_seed(config.seed)
    if config.weights is None and config.recipe.freeze_norm and config.recipe.freeze == "none":
        # Batch norms that never saw data have nothing to keep.
        config = replace(config, recipe=replace(config.recipe, freeze_norm=False))
    model = build_model(dataset.schema, config.model, len(dataset.category_names), config.weights)
    unfinished = read_last(out) if setting.resume else None
    if unfinished is not None:  # now, not after the maps are computed
        check_same_run(unfinished, run_identity(config, dataset, model), out)
    model.to(setting.device)
    reading = Reading(config.preprocessing, setting.workers, progress.encoded)
    source: Source
    if config.recipe.freeze != "none":
        if not processes.first:  # one process computes the maps, the others then find them
            processes.wait()
        cache, retry = out.parent / "cache", processes.first
        source = StoredMaps(model, dataset, reading, cache, config.recipe, retry=retry)
        if processes.first:
            processes.wait()
    else:
        source = Photographs(dataset, reading)
    if config.recipe.freeze != "all":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.needs_landmarks:
        source.locate()
    trainer = Trainer(model, source, config, setting)
    report = TrainReport(out, images=len(trainer.plans.rows), failures=source.failures)
    if unfinished is not None:
        unfinished.restore(model, trainer.optimizer, report)
    else:
        trainer.prepare()
    trainer.train(report, progress)
    if exports and processes.first:
        progress.exporting()
        _calibrate(out / "best", source, setting.device)
        paths = [dataset.paths[row] for row in rows]
        pictures = sample_pictures(dataset.root, paths, config.preprocessing)
        report.export = export_checkpoint(load_checkpoint(out / "best"), pictures)
    return report


def _calibrate(folder: Path, source: Source, device: str) -> None:
    """Let the chances of a checkpoint be as often right as they say, by the `valid` split, and note
    how high those of what is true are there."""
    best = load_checkpoint(folder, device)
    readout = best.model.values
    bank = None if readout is None else source.validation_bank(best.model)
    if readout is None or bank is None:
        return
    schema, labels = bank.dataset.schema, bank.dataset.labels
    said = readout.calibrate(torch.from_numpy(bank.chances), torch.from_numpy(labels)).numpy()
    found = {
        "true_chances": true_chances(schema, said, labels),
        "thresholds": best_thresholds(schema, said, labels),
    }
    save_checkpoint(folder, best.model, best.preprocessing, best.categories, best.training | found)


def true_chances(
    schema: Schema, chances: NDArray[np.float32], labels: NDArray[np.int8]
) -> dict[str, list[float]]:
    """The 0th to 100th percentile of the chances [M, K] of what is true of images by their label
    states [M, K], a value or that none applies, by attribute: sets of all with at least the 10th
    hold 90 % of what is true (conformal prediction, Sadinle et al. 2019). Attributes without labels
    are left out."""
    out = {}
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        lacking = schema.inapplicable(labels)[:, number]
        true = chances[:, own][labels[:, own] == 1]
        true = np.append(true, schema.left_over(chances)[lacking, number])
        if len(true):
            percentiles = np.quantile(true, np.linspace(0, 1, 101), method="lower")
            out[attribute.name] = [round(float(one), 5) for one in percentiles]
    return out


LEAST_SHOWN = 5
"""Images that have to have a value for it to get a threshold of its own."""


def best_thresholds(
    schema: Schema, chances: NDArray[np.float32], labels: NDArray[np.int8]
) -> dict[str, list[float]]:
    """The chance from which on each value of a multi-valued attribute is best said to be there, by
    chances [M, K] that are calibrated and label states [M, K] of images that were not trained on.

    A value that fewer than `LEAST_SHOWN` images have gets the `best_threshold` of all values of its
    attribute together. Attributes that fewer than `LABELLED` are labelled in are left out.
    """
    out, known = {}, schema.labelled(labels)
    for number in np.flatnonzero(schema.multi).tolist():
        own, rows = schema.slice_of(number), np.flatnonzero(known[:, number])
        if len(rows) >= LABELLED:
            said, shown = chances[rows, own], (labels[rows, own] == 1).sum(axis=0)
            each = [said if count < LEAST_SHOWN else said[:, n] for n, count in enumerate(shown)]
            name = schema.attributes[number].name
            out[name] = [round(best_threshold(one.ravel()), 5) for one in each]
    return out


def best_threshold(chances: NDArray[np.float32]) -> float:
    """The threshold of the highest F1 that chances [n] let expect of themselves: half of that F1
    (Lipton et al. 2014). Labels tell less of it than calibrated chances: fitted to the few that
    have a value, a threshold says more that is wrong (benchmarks/NOTES.md)."""
    falling = -np.sort(-chances.astype(np.float64))
    said = np.arange(1, len(falling) + 1)
    return float((falling.cumsum() / (said + falling.sum())).max())
