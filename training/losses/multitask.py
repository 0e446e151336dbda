"""The multi-task losses: category (Eq. 10), attributes (Eqs. 11, 12), and values by type."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.schema import Schema


def category_loss(logits: Tensor, category: Tensor) -> Tensor:
    """Softmax cross-entropy over categories.

    Args:
        logits: [B, C].
        category: [B] int64, -1 unknown (left out).

    Returns:
        Scalar; 0 when no category is known.
    """
    known = category >= 0
    if not bool(known.any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[known], category[known])


def masked_attribute_loss(logits: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """Binary cross-entropy on the labels that were hidden, given those that were shown.

    Args:
        logits: [B, K].
        labels: label states [B, K] in {-1, 0, +1}.
        shown: label states after masking [B, K].

    Returns:
        Scalar, the mean over hidden known labels; 0 when there are none.
    """
    scored = (labels != 0) & (shown == 0)
    if not bool(scored.any()):
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[scored], (labels[scored] > 0).float())


def value_loss(logits: Tensor, labels: Tensor, schema: Schema, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the values of each attribute, read under its type condition.

    Args:
        logits: [B, K], each value's logit under its attribute's type condition.
        labels: label states [B, K].
        schema: single-valued attributes get a softmax, multi-valued ones a sigmoid for each value.
        smoothing: label smoothing of the softmax, 0..1.

    Returns:
        Scalar, the mean over attributes that have a labelled image in the batch.
    """
    losses = []
    for number, attribute in enumerate(schema.attributes):
        where = schema.slice_of(number)
        own, states = logits[:, where], labels[:, where]
        if attribute.multi:
            known = states != 0
            if bool(known.any()):
                target = (states[known] > 0).float()
                losses.append(F.binary_cross_entropy_with_logits(own[known], target))
            continue
        labelled = (states == 1).any(1)
        if bool(labelled.any()):
            target = states[labelled].argmax(1)
            losses.append(F.cross_entropy(own[labelled], target, label_smoothing=smoothing))
    return torch.stack(losses).mean() if losses else logits.sum() * 0
