"""Supervised contrastive loss on the conditioned embedding (Khosla et al., NeurIPS 2020, L_out).

Not in the paper; measured in EVALUATION.md to be worth far more than the architecture's details.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.pairs import Pairs


def contrastive_loss(similarities: Tensor, pairs: Pairs, temperature: float) -> Tensor:
    """-log softmax of the positives among positives and negatives, mean over anchors.

    Args:
        similarities: cosine similarities [C, B, B].
        pairs: which pairs are alike and unlike under each condition.
        temperature: divisor of the similarities, > 0.

    Returns:
        Scalar; anchors without a positive or without a negative are left out.
    """
    count = pairs.positive.sum(-1)
    anchors = (count > 0) & pairs.negative.any(-1)
    if not bool(anchors.any()):
        return similarities.sum() * 0
    logits = similarities[anchors] / temperature  # [A, B]
    positive = pairs.positive[anchors]
    contrasted = positive | pairs.negative[anchors]
    log_sum = logits.masked_fill(~contrasted, -torch.inf).logsumexp(-1)
    mean_positive = (logits * positive).sum(-1) / count[anchors]
    return (log_sum - mean_positive).mean()
