"""Checkpoints: safetensors, `config.json`, `schema.json` and a generated model card.

Nothing in a checkpoint can execute; nothing pickled is ever loaded. What a checkpoint says of its
model is read without torch; torch is imported once its weights are asked for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.descriptor import DescriptorLayout
from training.errors import DataError, UsageError
from training.files import as_resource_error, write_file
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig, build_model, layout_of
from training.report import Parity
from training.schema import Schema, normalise_name
from training.validated import read_json, validated

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.embedder import ConditionedEmbedder


def model_card(
    model: ConditionedEmbedder,
    preprocessing: Preprocessing,
    training: dict[str, Any],
    parity: Parity | None = None,
) -> str:
    """Markdown: what the model is and what it is made of, how well it was trained (remarks on the
    run), how close its ONNX files are to it, how to load it."""
    config, grid = model.config, model.grid
    kind = "An image embedding conditioned on attribute labels"
    if not model.sees_values:
        kind = (
            "A model to compare M2Fashion with (`retrieve evaluate` measures it, it cannot be "
            "indexed): an image embedding"
        )
    lower = ", with the stages below it and the pixels" if config.lower_stages else ""
    parameters = sum(p.numel() for p in model.parameters())
    data, images, seed, epoch = (
        training.get(name, "?") for name in ("dataset", "images", "seed", "epoch")
    )
    source = "".join(
        f"; {key}: {words}" for key, words in training.get("backbone_source", {}).items()
    )
    mean, std = (
        ", ".join(f"{x:.4g}" for x in of) for of in (preprocessing.mean, preprocessing.std)
    )
    figure = training.get("validation")
    measured = "" if figure is None else f"\n- validation MAP (type mode, all): {figure:.2f} %"
    if parity is not None:
        measured += "".join(f"\n- {file}: {words}" for file, words in parity.told.items())
    rows = "\n".join(
        f"| {normalise_name(of.name)} ({len(of.values)}) | {', '.join(of.values[:12])}"
        f"{', ...' if len(of.values) > 12 else ''} |"
        for of in model.schema.attributes
    )
    return f"""---
library_name: m2fashion-retrieval
pipeline_tag: image-feature-extraction
---

# {model.title}

{kind} ({model.paper}), for attribute-specific fashion retrieval.

- backbone: {config.backbone} up to {config.stage}{lower}; {parameters:,} parameters in all{source}
- pictures: {preprocessing.size} px, mean {mean}, deviation {std}
- embedding: {model.dim} numbers, from maps of {grid[0]} x {grid[1]} cells
- trained on: {data} ({images} images), seed {seed}, epoch {epoch}{measured}

| attribute | values |
|---|---|
{rows}

```python
from training.checkpoint import load_checkpoint

model = load_checkpoint(Path(".")).model
```

Limits: it knows the attributes and values above, as its training photographs show them. Predicted
labels are guesses; do not use them to describe people.
"""


WEIGHTS, CONFIG, SCHEMA, CARD = "model.safetensors", "config.json", "schema.json", "README.md"
ONNX, ONNX_INT8 = "model.onnx", "model.int8.onnx"
"""What training adds at its end, see `training/export.py`; int8 is the backbone alone."""

INPUTS = ("images", "conditions")
"""Of both graphs: uint8 [B, 3, S, S] of `Preprocessing.fit`, and label states [C, K] float32."""

OUTPUTS = ("chances", "nuance", "attention")
"""Likewise, float32: [B, K] and [B, N] as of `Described`, and where the model looks under each
condition [B, C, H, W], which sums to 1 over H and W. N may be 0."""

CHECKPOINT_KEY = "m2fashion.checkpoint"
PREPROCESSING_KEY, SCHEMA_KEY = "m2fashion.preprocessing", "m2fashion.schema"
"""Names, in a graph's metadata, of the hash of what it was made of."""

FILES = (WEIGHTS, CONFIG, SCHEMA, CARD, ONNX, ONNX_INT8)


def onnx_name(precision: str) -> str:
    """The exported file that encodes in a precision: float32 stands for `bfloat16` too."""
    return ONNX_INT8 if precision == "int8" else ONNX


@dataclass(frozen=True)
class _Config:
    """`config.json`."""

    format: Literal[1]
    architecture: str
    model: ModelConfig
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    training: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk; see `load_checkpoint`."""

    folder: Path  # where it lies
    config: ModelConfig
    schema: Schema  # attributes and values it was trained on
    preprocessing: Preprocessing  # how its images are prepared
    categories: tuple[str, ...]  # names of the category head's classes
    # what the trainer wrote about the run (dataset, recipe, epoch, validation)
    training: dict[str, Any]
    device: str = "cpu"  # of `model`

    @cached_property
    def model(self) -> ConditionedEmbedder:
        """The model in inference mode on `device`, read when first asked for; raises DataError if
        its weights are broken or do not fit its config."""
        from training.models.backbones import read_weights

        path = self.folder / CONFIG
        try:
            model = build_model(self.schema, self.config, len(self.categories))
        except UsageError as error:  # options that do not go together
            raise DataError(f"{path}: {error}") from error
        _load_exactly(model, read_weights(self.folder / WEIGHTS), self.folder / WEIGHTS)
        return model.eval().requires_grad_(False).to(self.device)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over weights, config and schema, hexadecimal: remarks on the training run do not
        change an embedding."""
        config = read_json(self.folder / CONFIG)
        kept = {k: config[k] for k in ("architecture", "model", "preprocessing", "categories")}
        digest = hashlib.sha256((self.folder / WEIGHTS).read_bytes())
        digest.update(json.dumps(kept, sort_keys=True).encode())
        digest.update((self.folder / SCHEMA).read_bytes())
        return digest.hexdigest()

    @property
    def layout(self) -> DescriptorLayout:
        """What the bytes of its descriptors are."""
        return layout_of(self.config, self.schema)


def save_checkpoint(
    folder: Path,
    model: ConditionedEmbedder,
    preprocessing: Preprocessing,
    categories: tuple[str, ...],
    training: dict[str, Any],
) -> None:
    """Write a checkpoint, see `Checkpoint`; each file is replaced as a whole, the config last, and
    ONNX files of other weights are removed first. Raises ResourceError."""
    from safetensors.torch import save

    config = _Config(1, model.architecture, model.config, preprocessing, categories, training)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with as_resource_error(folder):
        for name in (ONNX, ONNX_INT8):
            (folder / name).unlink(missing_ok=True)
    # Not `save_file`: nobody else may read its files.
    write_file(folder / WEIGHTS, save(state, {"format": "pt"}))
    for name, content in (
        (SCHEMA, json.dumps(model.schema.to_json(), indent=1)),
        (CARD, model_card(model, preprocessing, training)),
        (CONFIG, json.dumps(asdict(config), indent=1)),
    ):
        write_file(folder / name, content.encode())


def load_checkpoint(folder: Path, device: str = "cpu") -> Checkpoint:
    """Read what a checkpoint says of its model, which goes to a device once it is asked for; a
    run's folder stands for its best epoch. Raises DataError for files that are missing, broken, or
    do not fit each other."""
    if not (folder / CONFIG).is_file() and (folder / "best" / CONFIG).is_file():
        folder = folder / "best"
    missing = [name for name in (WEIGHTS, CONFIG, SCHEMA) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} is no checkpoint: it lacks {', '.join(missing)}; "
            "`retrieve train --dataset D --out RUN` makes one"
        )
    path = folder / CONFIG
    config = validated(_Config, read_json(path), str(path), DataError)
    if config.model.architecture != config.architecture:
        raise DataError(
            f"{path} contradicts itself: architecture {config.architecture!r}, but "
            f"{config.model.architecture!r} in its model options"
        )
    schema = Schema.from_json(read_json(folder / SCHEMA))
    about = config.preprocessing, config.categories, config.training
    return Checkpoint(folder, config.model, schema, *about, device)


def _load_exactly(model: ConditionedEmbedder, state: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    if differing := sorted(own.keys() ^ state.keys()):
        raise DataError(f"{path} does not fit its config: missing or unknown {differing[:3]}")
    for key, tensor in own.items():
        (shape, kind), needed = ((tuple(t.shape), t.dtype) for t in (state[key], tensor))
        if (shape, kind) != needed:
            raise DataError(
                f"{path}: {key!r} is {kind} of shape {shape}, not {needed[1]} {needed[0]}"
            )
    model.load_state_dict(state)
