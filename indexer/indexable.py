"""Which models an index can be built of."""

from __future__ import annotations

from training.errors import UsageError
from training.models.embedder import ConditionedEmbedder, Embedder
from training.models.m2fashion import M2Fashion


def check_indexable(model: Embedder) -> None:
    """Raise UsageError for a rival: what it sees in an image is not read as chances of values."""
    if isinstance(model, ConditionedEmbedder) and not isinstance(model, M2Fashion):
        raise UsageError(
            f"this checkpoint holds the model {model.architecture!r}: `retrieve evaluate` measures "
            "it, but only m2fashion can be indexed; train one with `retrieve train --variant "
            "m2fashion`"
        )
