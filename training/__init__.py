"""What is learned, and from what: attribute schema, dataset adapters, models, losses, trainer.

Importing it settles how many threads compute (`training.threads`), for this process and those that
it starts: before numpy, torch and faiss load, unless they are loaded already.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from training.errors import UsageError
from training.threads import settle

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


with suppress(UsageError):  # a wrong $RETRIEVE_THREADS is told of by whatever needs the number
    settle()


def __getattr__(name: str) -> Any:
    """Import the public functions when they are asked for: they bring torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'training' has no attribute {name!r}")
    home, own = _HOMES[name]
    return getattr(import_module(home), own)
