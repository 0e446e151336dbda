"""A run's folder: `best/`, the checkpoint to use, and `last/`, which a killed run goes on from.

`last/` is replaced as a whole: the new one is written beside it, the old one is moved away, the new
one moved in, the old one removed. Whenever a run is killed, one of the three is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError, ResourceError
from training.models.backbones import read_weights
from training.models.conditioned import ConditionedEmbedder
from training.optimisation import optimizer_tensors
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.train_report import EpochReport, TrainReport

_STATE, _OPTIMIZER = "state.json", "optimizer.safetensors"
_LAST, _NEW, _OLD = "last", "last.new", "last.old"


@dataclass(frozen=True)
class Unfinished:
    """What a run goes on from.

    Args:
        checkpoint: the model after the last finished epoch.
        optimizer: its state, as `optimizer_tensors` names it.
        state: what `save_last` noted.
        folder: where it was read from.
    """

    checkpoint: Checkpoint
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    folder: Path

    def continued(self, report: TrainReport) -> None:
        """Put the epochs that are done into a report."""
        report.best_epoch = self.state["best_epoch"]
        report.best_validation = self.state["best_validation"]
        report.epochs = [EpochReport(**epoch) for epoch in self.state["epochs"]]


def whole_last(out: Path) -> Path | None:
    """The folder that a run goes on from; None if no epoch was finished."""
    # The state is the last file of the three to be written: where it is, the others are.
    folders = (out / name for name in (_LAST, _NEW, _OLD))
    return next((folder for folder in folders if (folder / _STATE).is_file()), None)


def save_last(
    report: TrainReport,
    model: ConditionedEmbedder,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    preprocessing: Preprocessing,
    recipe: Recipe,
    seed: int,
    remarks: dict[str, Any],
) -> None:
    """Keep the run as it is after an epoch.

    Args:
        report: the epochs so far, and the run's folder.
        model: as it is now.
        optimizer: likewise.
        dataset: that it is trained on.
        preprocessing: of its images.
        recipe: options.
        seed: of every draw.
        remarks: for the checkpoint.

    Raises:
        ResourceError: the folder cannot be written; what was kept before still is.
    """
    last, new, old = (report.out / name for name in (_LAST, _NEW, _OLD))
    state = {
        "recipe": recipe.to_json(),
        "seed": seed,
        "data": data_digest(dataset),
        "best_epoch": report.best_epoch,
        "best_validation": report.best_validation,
        "epochs": [vars(epoch) for epoch in report.epochs],
    }
    try:
        kept = whole_last(report.out)
        if kept is not None and kept != last:  # a kill left it without its name
            shutil.rmtree(last, ignore_errors=True)
            os.rename(kept, last)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)
        save_checkpoint(new, model, preprocessing, dataset.category_names, remarks)
        (new / _OPTIMIZER).write_bytes(save(optimizer_tensors(optimizer)))
        (new / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        _sync(new)
        if last.exists():
            os.rename(last, old)
        os.rename(new, last)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"cannot write {new}: {error}") from error


def read_last(out: Path) -> Unfinished:
    """Read what `save_last` kept.

    Raises:
        DataError: there is nothing to go on from, or a file of it is damaged.
    """
    folder = whole_last(out)
    if folder is None:
        raise DataError(f"nothing to resume in {out}: no epoch of a run was finished there")
    path = folder / _STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(state, dict):
            raise DataError(f"{path} is damaged: it holds no state of a run")
        found = Unfinished(
            load_checkpoint(folder), read_weights(folder / _OPTIMIZER), state, folder
        )
        found.continued(TrainReport(out))
        dict(state["recipe"]), state["seed"], state["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged or of an older version: {error!r}") from error
    return found


def check_same_run(
    found: Unfinished,
    model: ConditionedEmbedder,
    dataset: Dataset,
    recipe: Recipe,
    preprocessing: Preprocessing,
    seed: int,
) -> None:
    """Check that a run goes on as it began.

    Args:
        found: where it stopped.
        model: as the run starts.
        dataset: that it is to be trained on.
        recipe: options.
        preprocessing: of its images.
        seed: of every draw.

    Raises:
        DataError: something differs; the message names it.
    """
    kept, state = found.checkpoint, found.state
    ours = recipe.to_json() | model.config.to_json() | preprocessing.to_json() | {"seed": seed}
    theirs = state["recipe"] | kept.model.config.to_json() | kept.preprocessing.to_json()
    theirs |= {"seed": state["seed"]}
    differing = [
        f"{k}: {theirs.get(k)} there, {v} here" for k, v in ours.items() if theirs.get(k) != v
    ]
    if kept.schema.hash != model.schema.hash:
        differing.append("other attributes or values")
    elif state["data"] != data_digest(dataset):
        differing.append("other training or validation images, or labels of them")
    if not differing and recipe.freeze_backbone and not _same_backbone(kept.model, model):
        differing.append("other weights of the frozen backbone")
    if differing:
        raise DataError(
            f"{found.folder} is of another run ({'; '.join(differing)}); "
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


def _sync(folder: Path) -> None:
    """Have all of a folder on the disk: it is to be whole after a power cut too."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _same_backbone(one: ConditionedEmbedder, other: ConditionedEmbedder) -> bool:
    theirs = other.backbone.state_dict()
    return all(
        torch.equal(tensor, theirs[name].cpu())
        for name, tensor in one.backbone.state_dict().items()
    )
