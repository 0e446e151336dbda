"""Tags: what chances say of attributes that nobody has labelled, and of labels that are wrong.

Each attribute is read under its own type condition, and what is known of the others is counted in
by how values go together: that helps, and told to the model, as in the paper's multi-task training,
it does not (`retrieve bench tagging`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.build.build import check_indexable, export_if_missing
from indexer.build.shards import one_ahead
from indexer.encode.encode import BatchEncoder
from indexer.encode.forward import choose_forward, choose_runtime
from indexer.progress import Progress
from training.checkpoint import Checkpoint
from training.errors import DataError
from training.images.batches import default_workers, read_batches
from training.schema import Schema

THRESHOLD = 0.5
"""A picture has those values of a multi-valued attribute whose chance is at least this."""

_COMPANY = 0.35  # chosen on `valid` of two catalogues
_PRIOR = 10.0  # pictures without any company
_TINY = np.float32(1e-6)

Floats = NDArray[np.float32]


def least_chances(training: Mapping[str, Any], schema: Schema, coverage: float) -> Floats:
    """The chance [attributes] from which on values are in sets that hold the true ones of a share
    `coverage` of pictures, by what a checkpoint notes of its `training`; see `true_chances`.

    Raises DataError if it notes nothing of an attribute, as without a `valid` split.
    """
    noted, place = training.get("true_chances", {}), math.floor(100 * (1 - coverage) + 1e-9)
    missing = [own.name for own in schema.attributes if own.name not in noted]
    if missing:
        raise DataError(
            f"the model was trained without images of a `valid` split that are labelled in "
            f"{missing[0]}, so how sure it has to be is not known"
        )
    return np.array([noted[own.name][place] for own in schema.attributes], dtype=np.float32)


@dataclass(frozen=True)
class Predicted:
    """What N pictures are taken to have: of every attribute one value, of a multi-valued one all
    from `THRESHOLD` on, or the likeliest where there is none."""

    values: NDArray[np.bool_]  # [N, K]
    chances: Floats  # [N, attributes], of the least likely of the values that were taken
    sets: NDArray[np.bool_] | None = None  # [N, K], what else they may have; None: not asked for

    @classmethod
    def of(cls, schema: Schema, chances: Floats) -> Predicted:
        """Read chances [N, K]; of equal ones the first value counts."""
        values = np.zeros(chances.shape, dtype=bool)
        least = np.empty((len(chances), len(schema.attributes)), dtype=np.float32)
        for number, several in enumerate(schema.multi.tolist()):
            own = chances[:, schema.slice_of(number)]
            taken = values[:, schema.slice_of(number)]  # a view
            taken[np.arange(len(own)), own.argmax(axis=1)] = True
            if several:
                taken |= own >= THRESHOLD
            least[:, number] = np.where(taken, own, 2).min(axis=1)
        return cls(values, least)


def company(schema: Schema, labels: NDArray[np.int8]) -> Floats:
    """How values go together, learnt from label states [N, K]: at [u, v] the logarithm of how much
    oftener v is where u is, among pictures labelled in v's attribute; 0 within an attribute."""
    owner = schema.attribute_of
    present = (labels == 1).astype(np.float32)
    known = np.maximum.reduceat(present, schema.offsets[:-1], axis=1)[:, owner]
    share = present.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    beside = (present.T @ present + _PRIOR * share) / (present.T @ known + _PRIOR)
    lift = np.log(np.maximum(beside, _TINY) / np.maximum(share, _TINY))
    return np.where(owner[:, None] == owner, 0, lift).astype(np.float32)


def beside_labels(
    schema: Schema, lift: Floats, labels: NDArray[np.int8], chances: Floats
) -> Floats:
    """Chances [N, K] with what label states [N, K] say of a picture's other attributes counted in,
    at `_COMPANY` of what naive Bayes makes of their `company`, `lift`."""
    fitting = np.maximum(chances, _TINY) * np.exp(_COMPANY * (labels == 1) @ lift)
    rest = np.maximum(1 - chances, _TINY)
    for number in np.flatnonzero(~schema.multi).tolist():
        own = schema.slice_of(number)
        rest[:, own] = fitting[:, own].sum(axis=1, keepdims=True) - fitting[:, own]
    return np.asarray(fitting / (fitting + rest), dtype=np.float32)


def support_of(schema: Schema, labels: NDArray[np.int8], chances: Floats) -> Floats:
    """How well known labels are borne out, [N, attributes] in 0..1: the chance of the least likely
    of their statements, beside the picture's other labels; NaN where no value is known.

    `labels` are label states [N, K], `chances` of every value [N, K].
    """
    starts = schema.offsets[:-1]
    fitting = beside_labels(schema, company(schema, labels), labels, chances)
    stated = np.where(labels == 1, fitting, np.where(labels == -1, 1 - fitting, 1))
    known = np.logical_or.reduceat(labels == 1, starts, axis=1)
    return np.where(known, np.minimum.reduceat(stated, starts, axis=1), np.nan).astype(np.float32)


def predict(
    checkpoint: Checkpoint, device: str, root: Path, paths: Sequence[str], progress: Progress
) -> Iterator[Floats]:
    """Chances of every value of the pictures `root / path`, a batch [B, K] after another in their
    order; NaN, which is said, where one cannot be read. A batch that does not fit into memory is
    taken in parts.

    Raises:
        UsageError: the model is not M2Fashion.
        DataError: it is broken.
        ResourceError: not even one picture fits, or a runtime is missing.
    """
    progress.start("pictures", len(paths))
    check_indexable(checkpoint)
    export_if_missing(checkpoint, root, paths, progress)
    runtime, precision = choose_runtime("auto", "auto", device)
    forward = choose_forward(checkpoint, runtime, precision, device)
    size, workers = forward.batch_size, default_workers(device)
    batches = [range(i, min(i + size, len(paths))) for i in range(0, len(paths), size)]
    read = read_batches(root, paths, batches, checkpoint.preprocessing, workers)
    for batch, results in one_ahead(read, BatchEncoder(forward, progress.say)):
        chances = np.full((len(batch.listed), checkpoint.schema.size), np.nan, dtype=np.float32)
        if batch.good:
            places = np.array(batch.good) - batch.listed[0]
            chances[places] = np.concatenate([result.chances for result in results])
        for place, reason in batch.failures:
            progress.say(f"left out {paths[place]}: {reason}")
        progress.advance(len(chances))
        yield chances
