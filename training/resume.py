"""A run's folder: `best/`, the checkpoint to use, and `last.pt`, which a killed run goes on from.

`last.pt` is replaced as a whole after each epoch; nothing in it can execute when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.datasets.dataset import Dataset
from training.errors import DataError
from training.files import write_file
from training.models.backbones import add_weights
from training.models.embedder import ConditionedEmbedder
from training.recipe import RunConfig
from training.report import EpochReport, TrainReport

LAST = "last.pt"


def whole_last(out: Path) -> Path | None:
    """The file that a run goes on from; None if no epoch was finished."""
    path = out / LAST
    return path if path.is_file() else None


def run_identity(config: RunConfig, dataset: Dataset, model: ConditionedEmbedder) -> dict[str, Any]:
    """What makes two runs one: all options, the schema, the data that is learned from and, where
    some of it is kept as loaded, the backbone that a model starts with."""
    digest = hashlib.sha256()
    if config.recipe.freeze != "none":
        add_weights(digest, model.backbone)
    return {
        "backbone": digest.hexdigest(),
        "options": config.options(),
        "schema": dataset.schema.hash,
        "data": data_digest(dataset),
    }


@dataclass(frozen=True)
class Unfinished:
    """What a run goes on from, as it is stored."""

    run: dict[str, Any]  # `run_identity`
    model: dict[str, Tensor]  # its state after the last finished epoch
    optimizer: dict[str, Any]  # likewise
    epochs: list[dict[str, Any]]  # the fields of each `EpochReport`
    best_epoch: int  # as `TrainReport` has it
    best_validation: float | None  # likewise

    def restore(
        self, model: ConditionedEmbedder, optimizer: torch.optim.Optimizer, report: TrainReport
    ) -> None:
        """Put all back where it was; raises DataError."""
        try:
            model.load_state_dict(self.model)
            optimizer.load_state_dict(self.optimizer)
            report.epochs = [EpochReport(**epoch) for epoch in self.epochs]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{report.out / LAST} is damaged: {error}") from error
        report.best_epoch, report.best_validation = self.best_epoch, self.best_validation


def save_last(
    report: TrainReport,
    model: ConditionedEmbedder,
    optimizer: torch.optim.Optimizer,
    run: dict[str, Any],
) -> None:
    """Keep the run as it is after an epoch; raises ResourceError, what was kept before still is."""
    epochs = [asdict(epoch) for epoch in report.epochs]
    best = report.best_epoch, report.best_validation
    state = Unfinished(run, model.state_dict(), optimizer.state_dict(), epochs, *best)
    content = io.BytesIO()
    torch.save(vars(state), content)
    write_file(report.out / LAST, content.getvalue())


def read_last(out: Path) -> Unfinished:
    """Read what `save_last` kept; raises DataError if there is nothing, or it is damaged."""
    path = whole_last(out)
    if path is None:
        raise DataError(f"nothing to resume in {out}: no epoch of a run was finished there")
    try:
        return Unfinished(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises almost anything on a damaged file
        raise DataError(f"{path} is damaged: {error!r}") from error


def check_same_run(found: Unfinished, run: dict[str, Any], out: Path) -> None:
    """Raise DataError, which names what differs, unless `run`, the `run_identity` of what is asked
    for now, is that of the run found in `out`."""
    ours, theirs = run["options"], found.run["options"]
    differing = [
        f"{k}: {theirs.get(k)} there, {v} here" for k, v in ours.items() if theirs.get(k) != v
    ]
    if found.run["schema"] != run["schema"]:
        differing.append("other attributes or values")
    elif found.run["data"] != run["data"]:
        differing.append("other training or validation images, or labels of them")
    if not differing and found.run["backbone"] != run["backbone"]:
        differing.append("other weights of the frozen backbone")
    if differing:
        raise DataError(
            f"{out} is of another run ({'; '.join(differing)}); "
            "drop --resume and pass another --out"
        )


def data_digest(dataset: Dataset) -> str:
    """SHA-256 of what is trained and validated on: paths, labels and categories, hexadecimal."""
    digest = hashlib.sha256()
    for split in ("train", "valid"):
        rows = dataset.rows_of(split)
        paths = [dataset.paths[row] for row in rows]
        digest.update(json.dumps([split, paths]).encode("utf-8", "surrogatepass"))
        for labels in (dataset.labels[rows], dataset.category[rows]):
            digest.update(np.ascontiguousarray(labels).tobytes())
    digest.update(json.dumps(dataset.category_names).encode())
    return digest.hexdigest()
