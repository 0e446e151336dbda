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
"""A picture has what has at least this chance, where no better threshold is known."""

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
    """What N pictures are taken to have: of every attribute the likeliest value, of a multi-valued
    one all that reach their thresholds, or the likeliest where none does. Of an optional one no
    value if it is likelier than any that it does not apply, and none reaches its threshold."""

    values: NDArray[np.bool_]  # [N, K]
    chances: Floats  # [N, attributes], of the least likely of what was taken
    sure: NDArray[np.bool_]  # [N, attributes], whether all of that reaches its threshold
    # what else may be [N, K + attributes]: values, then that an attribute does not apply; None: not
    # asked for
    sets: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, schema: Schema, chances: Floats, least: Floats | None = None) -> Predicted:
        """Read chances [N, K], by thresholds [K] as of `thresholds`, None: `THRESHOLD`; of equal
        ones the first value counts."""
        least = np.full(schema.size, THRESHOLD, np.float32) if least is None else least
        values = np.zeros(chances.shape, dtype=bool)
        found = schema.left_over(chances)
        sure = np.asarray(found >= THRESHOLD)
        for number, several in enumerate(schema.multi.tolist()):
            where = schema.slice_of(number)
            own, taken = chances[:, where], values[:, where]  # the latter is a view
            enough = np.asarray(own >= least[where])
            likeliest = np.eye(own.shape[1], dtype=bool)[own.argmax(axis=1)]
            likeliest &= own >= found[:, [number]]
            reached = enough.any(axis=1, keepdims=True) & several
            taken[:] = np.where(reached, enough, likeliest)
            some = taken.any(axis=1)
            found[some, number] = np.where(taken, own, 2).min(axis=1)[some]
            sure[some, number] = (enough | ~taken)[some].all(axis=1)
        return cls(values, found, sure)


def thresholds(training: Mapping[str, Any], schema: Schema) -> Floats:
    """The chance [K] from which on a picture is taken to have each value, by what a checkpoint
    notes of its `training`, see `best_thresholds`; `THRESHOLD` where it notes nothing."""
    noted = training.get("thresholds", {})
    every = (noted.get(own.name, [THRESHOLD] * len(own.values)) for own in schema.attributes)
    return np.array([one for own in every for one in own], dtype=np.float32)


def outcomes(schema: Schema, labels: NDArray[np.int8]) -> NDArray[np.bool_]:
    """What is known to be [N, K + attributes], by label states [N, K]: values, then that an
    attribute does not apply."""
    return np.hstack([labels == 1, schema.inapplicable(labels)])


def outcome_chances(schema: Schema, chances: Floats) -> Floats:
    """Chances of the `outcomes` [N, K + attributes], by those of values [N, K]."""
    return np.hstack([chances, schema.left_over(chances)])


def company(schema: Schema, labels: NDArray[np.int8]) -> Floats:
    """How `outcomes` go together, learnt from label states [N, K]: at [u, v] the logarithm of how
    much oftener v is where u is, among pictures labelled in v's attribute; 0 within an attribute.
    """
    owner, present = _owners(schema), outcomes(schema, labels).astype(np.float32)
    known = schema.labelled(labels)[:, owner].astype(np.float32)
    share = present.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    beside = (present.T @ present + _PRIOR * share) / (present.T @ known + _PRIOR)
    lift = np.log(np.maximum(beside, _TINY) / np.maximum(share, _TINY))
    return np.where(owner[:, None] == owner, 0, lift).astype(np.float32)


def _owners(schema: Schema) -> NDArray[np.int64]:
    """Attribute number of each of the `outcomes`."""
    return np.append(schema.attribute_of, np.arange(len(schema.attributes)))


def beside_labels(
    schema: Schema, lift: Floats, labels: NDArray[np.int8], chances: Floats
) -> Floats:
    """Chances [N, K] with what label states [N, K] say of a picture's other attributes counted in,
    at `_COMPANY` of what naive Bayes makes of their `company`, `lift`."""
    size, every = schema.size, outcome_chances(schema, chances)
    fitting = np.maximum(every, _TINY) * np.exp(_COMPANY * outcomes(schema, labels) @ lift)
    rest = np.maximum(1 - every[:, :size], _TINY)
    for number in np.flatnonzero(~schema.multi).tolist():
        own = schema.slice_of(number)
        total = fitting[:, own].sum(axis=1, keepdims=True)
        if schema.optional[number]:
            total += fitting[:, [size + number]]
        rest[:, own] = total - fitting[:, own]
    fitting = fitting[:, :size]
    return np.asarray(fitting / (fitting + rest), dtype=np.float32)


def support_of(schema: Schema, labels: NDArray[np.int8], chances: Floats) -> Floats:
    """How well known labels are borne out, [N, attributes] in 0..1: the chance of the least likely
    of their statements, or that none applies, beside the picture's other labels; NaN where nothing
    is known.

    `labels` are label states [N, K], `chances` of every value [N, K].
    """
    fitting = beside_labels(schema, company(schema, labels), labels, chances)
    stated = np.where(labels == 1, fitting, np.where(labels == -1, 1 - fitting, 1))
    support = np.minimum.reduceat(stated, schema.offsets[:-1], axis=1)
    lacking = schema.inapplicable(labels)
    support = np.where(lacking, schema.left_over(fitting), support)
    return np.where(schema.labelled(labels), support, np.nan).astype(np.float32)


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
