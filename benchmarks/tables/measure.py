"""The runs of a table: planned, trained and measured once each, kept, and shared by all tables.

WORK/runs/asen-s0-1f2e3d4c5b6a/    config.toml, best/, train.json, evaluation/
WORK/runs/cache/                   maps of the frozen backbone, shared by the runs
WORK/measured/KEY.json             what was measured, by `evaluation_key`

Run again, what is done is skipped; a run that was killed while it trained goes on. All rows of a
seed come before the next seed: an early stop leaves a whole table of fewer seeds.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import click
import torch

from benchmarks.common import commit_name, machine_name, retrieve, write_json
from benchmarks.tables.keys import Ground, evaluation_key, ground, training_key
from benchmarks.tables.options import Setting
from benchmarks.tables.row_file import Row, RowFile, config_toml, read_row_file
from retrieval.evaluation.combinations import draw_combinations
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.report import Protocols, Ranking, evaluate_split, to_json
from retrieval.evaluation.scorer import FloorScorer, floor_embed
from training.datasets.dataset import Dataset
from training.device import choose_device, keep_freed_memory
from training.errors import DataError
from training.files import write_file
from training.models.config import ARCHITECTURES, build_model, model_class
from training.resume import whole_last
from training.run import RunConfig

SPLIT = "test"
COMBINATIONS = 50  # as many as `retrieve evaluate` draws
MOST_SEEDS = 16


@dataclass(frozen=True)
class Run:
    """One row with one seed, and the keys of its checkpoint and of what is measured on it.

    `likeness_only`: combinations are ranked by likeness alone, because no loss of the row teaches
    the heads that predict values.
    """

    row: Row
    config: RunConfig
    likeness_only: bool
    training: str
    evaluation: str


@dataclass(frozen=True)
class Runs:
    """All runs that a table may have, what they rest on and where they are kept.

    Rows whose model learns from landmarks are left out where the data has none.
    """

    kind: ClassVar[str] = ""
    """Tells what is measured on a run from what other tables measure on it."""

    table: RowFile
    setting: Setting
    dataset: Dataset
    ground: Ground

    @classmethod
    def of(cls, rows_file: Path, setting: Setting) -> Self:
        """Those of a file of rows; raises UsageError, DataError."""
        table, dataset = read_row_file(rows_file), setting.load()
        table.chosen(setting.rows)
        if len(dataset.rows_of(SPLIT)) == 0:
            raise DataError(f"{dataset.name} has no images in its test split, which is measured")
        return cls(table, setting, dataset, ground(dataset, setting.weights))

    def run(self, row: Row, seed: int) -> Run:
        """One run with its keys; raises UsageError for an unknown option or variant."""
        backbone, epochs = self.setting.backbone, self.setting.epochs
        group = f"{self.dataset.name}-{backbone}"
        config = self.table.config(row, group, backbone, self.setting.weights, seed)
        recipe = config.recipe
        if epochs is not None:
            recipe = replace(recipe, epochs=min(epochs, recipe.epochs))
            config = replace(config, recipe=recipe)
        teaches = model_class(config.model.architecture).teaches_heads
        alike = row.floor or not (recipe.value_weight or recipe.attribute_weight or teaches)
        how = "floor" if row.floor else "likeness" if alike else "engine"
        measured = evaluation_key(config, self.ground, self.kind or how)
        return Run(row, config, alike, training_key(config, self.ground), measured)

    def chosen(self, names: str | None, seeds: int | None = None) -> list[Run]:
        """Those of some rows, a seed after the other; a floor has no seed but 0."""
        out = self.left_out
        rows = [row for row in self.table.chosen(names) if row.name not in out]
        numbers = range(seeds or self.setting.seeds)
        return [self.run(row, n) for n in numbers for row in rows if n == 0 or not row.floor]

    @property
    def left_out(self) -> dict[str, str]:
        """Name and title of the rows that want landmarks, if training images have none."""
        if self.dataset.has_landmarks("train"):
            return {}
        models = {row.name: row.model.get("architecture", row.variant) for row in self._rows}
        wanting = {n for n, m in models.items() if m in ARCHITECTURES}
        wanting = {n for n in wanting if model_class(models[n]).needs_landmarks}
        return {row.name: row.title for row in self._rows if row.name in wanting}

    @property
    def _rows(self) -> list[Row]:
        return list(self.table.rows.values())

    def kept(self) -> list[tuple[Run, dict[str, Any]]]:
        """All that was measured for this table, by row and seed, also by earlier calls."""
        runs = [run for name in self.table.rows for run in self.chosen(name, MOST_SEEDS)]
        return [(run, found) for run in runs if (found := self.measured(run)) is not None]

    def folder(self, run: Run) -> Path:
        """Of the run's checkpoints; named after what it is, not after the row that asked first."""
        name = f"{run.config.model.architecture}-s{run.config.seed}-{run.training[:12]}"
        return self.setting.work / "runs" / name

    def measured(self, run: Run) -> dict[str, Any] | None:
        """What was measured on the run; None if nothing was, or the file is broken."""
        return _read(self._measured_file(run))

    def measure(self) -> None:
        """Make every chosen run that has not been made; raises DataError, see `check`."""
        runs = self.chosen(self.setting.rows)
        for title in self.left_out.values():
            click.echo(f"left out, since it learns from landmarks: {title}", err=True)
        if not runs:
            raise DataError(f"{self.dataset.name} has no landmarks, which all chosen rows want")
        for number, run in enumerate(runs, 1):
            self.make(run, f"[{number}/{len(runs)}] {run.row.name}, seed {run.config.seed}")

    def make(self, run: Run, where: str) -> dict[str, Any]:
        """What is measured on a run, which is trained if it has not been; `where` tells of it.
        Raises DataError, see `check`."""
        done = self.measured(run)
        if done is not None:
            click.echo(f"{where}: done before", err=True)
            return done
        self.check()
        if run.row.floor:
            click.echo(f"{where}: measuring", err=True)
            record = self.floor(run)
        else:
            trained = self.trained(run, where)
            self.check()
            click.echo(f"{where}: evaluating", err=True)
            record = self.evaluate(run) | {"training": trained}
        record |= {"commit": commit_name(), "machine": machine_name(self.setting.device)}
        record.pop("checkpoint", None)  # where the run lies is this machine's business
        write_json(self._measured_file(run), record)
        return record

    def check(self) -> None:
        """Raise DataError if data, weights or code are no longer what the keys rest on."""
        now = ground(self.dataset, self.setting.weights)
        names = [
            f.name for f in fields(now) if getattr(now, f.name) != getattr(self.ground, f.name)
        ]
        if names:
            raise DataError(
                f"the {', '.join(names).replace('_', ' ')} changed while this command ran; what "
                "was made before is kept, run it again (in a checkout that nobody edits)"
            )

    def trained(self, run: Run, where: str) -> dict[str, Any]:
        """Train a run, or what is left of it, unless it is finished; what is kept of its report."""
        folder = self.folder(run)
        done = _read(folder / "train.json")
        if done is not None and (folder / "best" / "config.json").is_file():
            click.echo(f"{where}: trained before", err=True)
            return done
        resume = whole_last(folder) is not None
        if not resume:  # what a kill left cannot be resumed
            shutil.rmtree(folder, ignore_errors=True)
        write_file(folder / "config.toml", config_toml(run.config).encode())
        click.echo(f"{where}: {'resuming' if resume else 'training'} in {folder}", err=True)
        report = self.train(run, resume)
        kept = ("images", "best_epoch", "validation_map", "seconds", "setup_seconds")
        done = {name: report[name] for name in kept}
        done |= {"epochs": len(report["epochs"]), "machine": machine_name(self.setting.device)}
        write_json(folder / "train.json", done)
        return done

    def train(self, run: Run, resume: bool) -> dict[str, Any]:
        """What `retrieve train --json` prints, and `setup_seconds`, None for a resumed run."""
        started, folder = time.monotonic(), self.folder(run)
        words = ["--config", folder / "config.toml", "--out", folder]
        report = self._json("train", *words, *(["--resume"] if resume else []))
        setup = None if resume else round(time.monotonic() - started - report["seconds"], 1)
        return report | {"setup_seconds": setup}

    def evaluate(self, run: Run) -> dict[str, Any]:
        """What `retrieve evaluate --json` prints."""
        folder = self.folder(run)
        words = ["--checkpoint", folder, "--cache", self.setting.cache]
        return self._json("evaluate", *words, *(["--likeness-only"] if run.likeness_only else []))

    def floor(self, run: Run) -> dict[str, Any]:
        """The same of the frozen backbone's features, average-pooled, whatever the condition.

        `parameters` are the backbone's; its other layers stay random and unused.
        """
        keep_freed_memory()
        torch.manual_seed(run.config.seed)  # of a backbone without weights
        model = build_model(self.dataset.schema, run.config.model, 0, run.config.weights)
        model.eval().requires_grad_(False).to(choose_device(self.setting.device).device)
        seen = run.config.preprocessing, self.setting.workers
        encoded = encode_split(model, self.dataset, SPLIT, *seen)
        part, bank = encoded.dataset, encoded.bank
        how = Protocols((), draw_combinations(part, SPLIT, COMBINATIONS))
        scorer = FloorScorer(bank.pooled)
        found = evaluate_split(part, SPLIT, Ranking(scorer, floor_embed(bank)), scorer, how)
        return to_json(found) | {
            "images": len(part),
            "unreadable": len(encoded.failures),
            "parameters": sum(p.numel() for p in model.backbone.parameters()),
        }

    def _json(self, command: str, *words: Any) -> dict[str, Any]:
        machine = ["--device", self.setting.device, "--workers", self.setting.workers]
        text = retrieve(command, *self.setting.words, *words, *machine, "--json", capture=True)
        return dict(json.loads(text))

    def _measured_file(self, run: Run) -> Path:
        return self.setting.work / "measured" / f"{run.evaluation[:32]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
