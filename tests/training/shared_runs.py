"""Small runs that several processes can share; as a script it is one of those processes.

    torchrun --nproc-per-node 2 shared_runs.py CATALOGUE WEIGHTS OUT

Each process writes what it was told of every run to OUT/report-RANK.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from retrieval.commands.train import validation_map
from training import trainer
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.processes import ALONE, Processes, joined
from training.recipe import Recipe
from training.report import EpochReport, Progress
from training.run import RunConfig, Setting, run_training
from training.trainer import Trainer

_RECIPE = Recipe(
    epochs=2,
    batch_size=12,
    learning_rate=2e-3,
    backbone_learning_rate=1e-3,
    crop=0.8,
    drop_maps=0.2,
    precision="float32",
    triplets_per_epoch=24,
)


def shared_configs(weights: str) -> dict[str, RunConfig]:
    """All, the stem or nothing frozen, batches or triplets. With weights, so that batch norms are
    kept as loaded: they would see each process' share alone."""
    recipes = {
        "frozen": _RECIPE,
        "unfrozen": replace(_RECIPE, freeze="none"),
        "stem frozen": replace(_RECIPE, freeze="stem"),
        "frozen triplets": replace(_RECIPE, sampling="triplets"),
        "unfrozen triplets": replace(_RECIPE, sampling="triplets", freeze="none"),
    }
    model = ModelConfig("small", "layer3", 2, 8)
    return {
        name: RunConfig(model, recipe, Preprocessing(size=32), weights)
        for name, recipe in recipes.items()
    }


class Told(Progress):
    """What a process was told."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.epochs: list[EpochReport] = []

    def step(self, losses: dict[str, float]) -> None:
        self.steps.append(losses)

    def end_epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def to_json(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "losses": [epoch.losses for epoch in self.epochs],
            "validation": [epoch.validation for epoch in self.epochs],
        }


def run_all(
    dataset: Dataset, weights: str, out: Path, processes: Processes = ALONE
) -> dict[str, dict[str, object]]:
    """Every run, one after another; without exports, which one process makes as if alone."""
    told = {}
    for name, config in shared_configs(weights).items():
        told[name] = Told()
        setting = Setting(validate=validation_map, processes=processes)
        with patch("training.run.export_checkpoint"):
            run_training(dataset, config, out / name / "run", setting, told[name])
    return {name: one.to_json() for name, one in told.items()}


def _main(catalogue: str, weights: str, out: Path) -> None:
    with joined("cpu") as (processes, _):
        assert processes.count == 2
        if not processes.first:  # it must not write
            Trainer._save_best = None  # type: ignore[assignment,method-assign]
            trainer.save_last = None  # type: ignore[assignment]
        reports = run_all(load_dataset(catalogue), weights, out, processes)
        (out / f"report-{processes.rank}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
