"""What is learned, and from what: attribute schema, dataset adapters, models, losses, trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.checkpoint import load_checkpoint
    from training.datasets import load_dataset
    from training.run import run_training as train

__all__ = ["load_checkpoint", "load_dataset", "train"]


def __getattr__(name: str) -> Any:
    """Import the public functions when they are asked for: they bring torch."""
    if name == "load_checkpoint":
        from training.checkpoint import load_checkpoint

        return load_checkpoint
    if name == "load_dataset":
        from training.datasets import load_dataset

        return load_dataset
    if name == "train":
        from training.run import run_training

        return run_training
    raise AttributeError(f"module 'training' has no attribute {name!r}")
