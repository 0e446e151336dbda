"""Triplet losses, Eqs. 13 and 14 with their signs settled.

max(0, m - sim(a, p) + sim(a, n)) with cosine similarity, m = 0.2. `triplet_loss` differs from the
paper: images go through the network once, and all valid triplets are formed among them;
`hinge_loss` is the plain form over triplets that were sampled, as in ASEN's recipe.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.pairs import Pairs


def triplet_loss(
    similarities: Tensor,
    pairs: Pairs,
    margin: float,
    positives: int,
    generator: torch.Generator,
) -> Tensor:
    """Mean hinge over the violating triplets; 0 (with a gradient of 0) when there are none.

    Averaging over violating triplets only keeps the loss from fading as most become easy.

    Args:
        similarities: cosine similarities [C, B, B].
        pairs: which pairs are alike and unlike under each condition, [C, B, B].
        margin: m, in units of cosine.
        positives: positives drawn for each anchor (with replacement); all its negatives are used.
        generator: source of the draws.
    """
    anchors = pairs.positive.any(-1) & pairs.negative.any(-1)
    if not bool(anchors.any()):
        return similarities.sum() * 0
    own, negative = similarities[anchors], pairs.negative[anchors]  # [A, B]
    weights = pairs.positive[anchors].float().cpu()
    picked = torch.multinomial(weights, positives, replacement=True, generator=generator)
    near = own.gather(1, picked.to(own.device))  # sim(a, p) [A, positives]
    hinge = (margin - near.unsqueeze(2) + own.unsqueeze(1)).clamp(min=0)  # [A, positives, B]
    hinge = hinge * negative.unsqueeze(1)
    return hinge.sum() / (hinge > 0).sum().clamp(min=1)


def hinge_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean over triplets of max(0, m - cos(a, p) + cos(a, n)), satisfied triplets included.

    Of embeddings [M, d], whose length does not matter; 0 (with a gradient of 0) when M is 0.
    """
    if len(anchor) == 0:
        return anchor.sum() * 0
    near = F.cosine_similarity(anchor, positive, dim=-1)
    far = F.cosine_similarity(anchor, negative, dim=-1)
    return (margin - near + far).clamp(min=0).mean()
