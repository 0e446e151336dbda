"""Checkpoints: safetensors, `config.json`, `schema.json` and a generated model card.

Nothing in a checkpoint can execute; nothing pickled is ever loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from training.errors import DataError, ResourceError, UsageError
from training.model_card import model_card
from training.models.backbones import read_weights
from training.models.conditioned import ConditionedEmbedder
from training.models.config import ModelConfig, from_mapping
from training.models.registry import ARCHITECTURES, build_model
from training.preprocessing import Preprocessing
from training.schema import Schema

FORMAT = 1
WEIGHTS, CONFIG, SCHEMA, CARD = "model.safetensors", "config.json", "schema.json", "README.md"
_BEFORE: dict[str, Any] = {"readout": "none", "lower_stages": False}
"""Options of models that were written before there were such options."""
FILES = (WEIGHTS, CONFIG, SCHEMA, CARD)


@dataclass(frozen=True)
class Checkpoint:
    """A model as read from disk, in inference mode.

    Args:
        model: the embedder.
        schema: attributes and values it was trained on.
        preprocessing: how its images are prepared.
        categories: names of the category head's classes.
        training: what the trainer wrote about the run (dataset, recipe, epoch, validation).
        hash: SHA-256 over weights, config and schema, hexadecimal.
        folder: where it was read from.
    """

    model: ConditionedEmbedder
    schema: Schema
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    training: dict[str, Any]
    hash: str
    folder: Path


def save_checkpoint(
    folder: Path,
    model: ConditionedEmbedder,
    preprocessing: Preprocessing,
    categories: tuple[str, ...],
    training: dict[str, Any],
) -> None:
    """Write a checkpoint; each file is replaced as a whole, the config last.

    Args:
        folder: created if need be.
        model: the embedder.
        preprocessing: how its images are prepared.
        categories: names of the category head's classes.
        training: JSON-ready remarks on the run.

    Raises:
        ResourceError: the folder cannot be written.
    """
    config = {
        "format": FORMAT,
        "architecture": model.architecture,
        "model": model.config.to_json(),
        "preprocessing": preprocessing.to_json(),
        "categories": list(categories),
        "training": training,
    }
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{WEIGHTS}.tmp"
        # Not `save_file`: its errors are no OSError, and nobody else may read its files.
        temporary.write_bytes(save(state, {"format": "pt"}))
        os.replace(temporary, folder / WEIGHTS)
        _replace_text(folder / SCHEMA, json.dumps(model.schema.to_json(), indent=1))
        _replace_text(folder / CARD, model_card(model, config))
        _replace_text(folder / CONFIG, json.dumps(config, indent=1))
    except OSError as error:
        raise ResourceError(f"cannot write the checkpoint {folder}: {error}") from error


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint; a run's folder stands for its best epoch.

    Args:
        folder: a folder with the checkpoint's files, or one that holds `best/`.
        device: where the model goes.

    Raises:
        DataError: files missing, broken, of a newer format, or not fitting each other.
    """
    if not (folder / CONFIG).is_file() and (folder / "best" / CONFIG).is_file():
        folder = folder / "best"
    missing = [name for name in (WEIGHTS, CONFIG, SCHEMA) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} is no checkpoint: it lacks {', '.join(missing)}; "
            "`retrieve train --dataset D --out RUN` makes one"
        )
    config = _read_json(folder / CONFIG)
    if not isinstance(config, dict) or str(config.get("architecture")) not in ARCHITECTURES:
        raise DataError(
            f"{folder / CONFIG} is not the config of a checkpoint: its architecture must be one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    if not isinstance(config.get("format"), int) or config["format"] > FORMAT:
        raise DataError(
            f"{folder / CONFIG} has format {config.get('format')!r}, this version reads up to "
            f"{FORMAT}; upgrade m2fashion-retrieval"
        )
    schema = Schema.from_json(_read_json(folder / SCHEMA))
    try:
        model_config = from_mapping(ModelConfig, _BEFORE | config["model"], str(folder / CONFIG))
        preprocessing = Preprocessing.from_json(config["preprocessing"])
        categories = tuple(str(c) for c in config["categories"])
        training = dict(config["training"])
    except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise DataError(f"{folder / CONFIG} is incomplete or malformed: {error!r}") from error
    if model_config.architecture != config["architecture"]:
        raise DataError(
            f"{folder / CONFIG} contradicts itself: architecture {config['architecture']!r}, but "
            f"{model_config.architecture!r} in its model options"
        )
    try:
        model = build_model(schema, model_config, len(categories))
    except UsageError as error:  # options that do not go together
        raise DataError(f"{folder / CONFIG}: {error}") from error
    _load_exactly(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    model.eval().requires_grad_(False).to(device)
    return Checkpoint(
        model, schema, preprocessing, categories, training, checkpoint_hash(folder), folder
    )


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 over the weights, the architecture, the preprocessing and the schema.

    The remarks on the training run do not count: they do not change an embedding.
    """
    config = _read_json(folder / CONFIG)
    kept = {k: config[k] for k in ("architecture", "model", "preprocessing", "categories")}
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes())
    digest.update(json.dumps(kept, sort_keys=True).encode())
    digest.update((folder / SCHEMA).read_bytes())
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error


def _load_exactly(model: ConditionedEmbedder, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or extra:
        raise DataError(
            f"{path} does not fit its config: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(extra)} unknown {extra[:3]}"
        )
    for key, tensor in own.items():
        if tensor.shape != state[key].shape:
            raise DataError(
                f"{path}: {key!r} has shape {tuple(state[key].shape)}, "
                f"its config needs {tuple(tensor.shape)}"
            )
        if tensor.dtype != state[key].dtype:
            raise DataError(f"{path}: {key!r} is {state[key].dtype}, not {tensor.dtype}")
    with torch.no_grad():
        model.load_state_dict(state)
