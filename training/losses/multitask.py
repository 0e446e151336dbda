"""The multi-task losses: category (Eq. 10), attributes (Eqs. 11, 12), and values by type.

Each is a scalar; 0, with a gradient of 0, where nothing is known.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.schema import Schema


def category_loss(logits: Tensor, category: Tensor) -> Tensor:
    """Softmax cross-entropy of logits [B, C] over categories [B] int64, without -1, unknown."""
    known = category >= 0
    if not bool(known.any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[known], category[known])


def masked_attribute_loss(logits: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """Mean binary cross-entropy on the labels that were hidden, given those that were shown.

    Args:
        logits: [B, K].
        labels: label states [B, K] in {-1, 0, +1}.
        shown: label states after masking [B, K].
    """
    scored = (labels != 0) & (shown == 0)
    if not bool(scored.any()):
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits[scored], (labels[scored] > 0).float())


def value_loss(logits: Tensor, labels: Tensor, schema: Schema, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the values of each attribute, mean over those that have a labelled image.

    Args:
        logits: [B, K], each value's logit under its attribute's type condition.
        labels: label states [B, K].
        schema: single-valued attributes get a softmax, multi-valued ones a sigmoid for each value.
        smoothing: label smoothing of the softmax, 0..1.
    """
    losses = []
    for number, attribute in enumerate(schema.attributes):
        where = schema.slice_of(number)
        own, states = logits[:, where], labels[:, where]
        if attribute.multi:
            if bool(states.any()):
                losses.append(masked_attribute_loss(own, states, torch.zeros_like(states)))
            continue
        labelled = (states == 1).any(1)
        if bool(labelled.any()):
            target = states[labelled].argmax(1)
            losses.append(F.cross_entropy(own[labelled], target, label_smoothing=smoothing))
    return torch.stack(losses).mean() if losses else logits.sum() * 0
