"""What is learned, and from what: attribute schema, dataset adapters, models, losses, trainer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.checkpoint import load_checkpoint
    from training.datasets import load_dataset
    from training.run import run_training as train

__all__ = ["load_checkpoint", "load_dataset", "train"]

_HOMES = {
    "load_checkpoint": ("training.checkpoint", "load_checkpoint"),
    "load_dataset": ("training.datasets", "load_dataset"),
    "train": ("training.run", "run_training"),
}


def __getattr__(name: str) -> Any:
    """Import the public functions when they are asked for: they bring torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    home, own = _HOMES[name]
    return getattr(import_module(home), own)
