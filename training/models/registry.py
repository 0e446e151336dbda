"""A model of any architecture by its name."""

from __future__ import annotations

import importlib

from training.models.config import ARCHITECTURES, ModelConfig
from training.models.embedder import ConditionedEmbedder
from training.schema import Schema


def model_class(name: str) -> type[ConditionedEmbedder]:
    """The class of a name of `ARCHITECTURES`."""
    module, _, kind = ARCHITECTURES[name].partition(":")
    found: type[ConditionedEmbedder] = getattr(importlib.import_module(module), kind)
    return found


def build_model(
    schema: Schema, config: ModelConfig, categories: int = 0, weights: str | None = None
) -> ConditionedEmbedder:
    """A new model of `config.architecture`, its layers random.

    Args and errors are those of `ConditionedEmbedder` and `build_backbone`.
    """
    return model_class(config.architecture)(schema, config, categories, weights)
