"""Which pairs of a batch are alike under each condition, and the losses of a step.

Label states are [B, K] in {-1, 0, +1}. A loss over nothing is 0, with a gradient of 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.schema import Attribute, Schema


@dataclass(frozen=True)
class Pairs:
    """Relations within a batch under C conditions; a pair can be neither."""

    positive: Tensor  # [C, B, B] bool, the two images are alike (never an image with itself)
    negative: Tensor  # [C, B, B] bool, they are known not to be


def type_pairs(labels: Tensor, schema: Schema) -> Pairs:
    """Under each attribute's type condition: alike when a value is shared, unlike when both are
    labelled in the attribute and share none. Of two that it does not apply to nothing is said."""
    own = [labels[:, schema.slice_of(number)] for number in range(len(schema.attributes))]
    share = torch.stack([_share(states == 1) for states in own])
    has = torch.stack([(states == 1).any(1) for states in own])
    none = torch.stack(
        [inapplicable(states, one) for states, one in zip(own, schema.attributes, strict=True)]
    )
    pairs, apart = _pairs(share, has), has[:, :, None] & none[:, None, :]
    return Pairs(pairs.positive, pairs.negative | apart | apart.transpose(1, 2))


def value_pairs(fits: Tensor) -> Pairs:
    """Under C value conditions that images fit [B, C] int8 in {1, 0, -1}: one that fits is alike
    another that fits, unlike one that does not. Images that do not fit anchor nothing: they may
    differ in every way."""
    yes, no = (fits == 1).T, (fits == 0).T
    return Pairs(_without_self(yes[:, :, None] & yes[:, None, :]), yes[:, :, None] & no[:, None, :])


def literal_pairs(labels: Tensor, conditions: int) -> Pairs:
    """The paper's literal rule, repeated for C conditions: alike when any value is shared."""
    has = labels == 1
    pairs = _pairs(_share(has)[None], has.any(1)[None])
    shape = (conditions, -1, -1)
    return Pairs(pairs.positive.expand(shape), pairs.negative.expand(shape))


def item_pairs(shows: Tensor) -> Pairs:
    """Pictures of one thing, by the number of what each shows [B] int64, -1 unknown, are alike,
    whatever its values; all others are unlike; C = 1."""
    known = shows >= 0
    return _pairs((known[:, None] & (shows[:, None] == shows))[None], known[None])


def inapplicable(states: Tensor, attribute: Attribute) -> Tensor:
    """Whether an attribute is known not to apply [*] bool, by the states of its values [*, n]."""
    return (states == -1).all(-1) & attribute.optional


def _share(has: Tensor) -> Tensor:
    """Whether two images share a value: [B, values] bool -> [B, B]."""
    return (has.float() @ has.float().T) > 0


def _pairs(alike: Tensor, known: Tensor) -> Pairs:
    """Unlike [C, B, B] is what is not alike, of two images [C, B] of which something is known."""
    both = known[:, :, None] & known[:, None, :]
    return Pairs(_without_self(alike), both & ~alike)


def _without_self(pairs: Tensor) -> Tensor:
    return pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)


def category_loss(logits: Tensor, category: Tensor) -> Tensor:
    """Softmax cross-entropy of logits [B, C] over categories [B] int64, without -1, unknown."""
    known = category >= 0
    if not bool(known.any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[known], category[known])


def masked_attribute_loss(
    logits: Tensor, labels: Tensor, shown: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean binary cross-entropy of logits [B, K] on the labels that were hidden, given those that
    were `shown`, the label states after masking; `weights` of the mean [B, K], > 0, None: equal."""
    scored = (labels != 0) & (shown == 0)
    if not bool(scored.any()):
        return logits.sum() * 0
    own = None if weights is None else weights[scored] / weights[scored].mean()
    return F.binary_cross_entropy_with_logits(logits[scored], (labels[scored] > 0).float(), own)


def value_loss(
    logits: Tensor, labels: Tensor, schema: Schema, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy over the values of each attribute, mean over those that have a labelled image.

    Of logits [B, K] under the attributes' type conditions: single-valued attributes get a softmax,
    multi-valued ones a sigmoid for each value, in a mean by `weights` [B, K]. That an optional one
    does not apply is one more class, whose logit is 0.
    """
    losses = []
    for number, attribute in enumerate(schema.attributes):
        where = schema.slice_of(number)
        own, states = logits[:, where], labels[:, where]
        if attribute.multi:
            if bool(states.any()):
                heavy = None if weights is None else weights[:, where]
                losses.append(masked_attribute_loss(own, states, torch.zeros_like(states), heavy))
            continue
        if attribute.optional:  # a last column
            own = F.pad(own, (0, 1))
            states = torch.cat([states, inapplicable(states, attribute)[:, None].to(states)], 1)
        labelled = (states == 1).any(1)
        if bool(labelled.any()):
            losses.append(F.cross_entropy(own[labelled], states[labelled].argmax(1)))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def triplet_loss(
    similarities: Tensor, pairs: Pairs, margin: float, positives: int, generator: torch.Generator
) -> Tensor:
    """Mean hinge over the violating triplets, of cosine similarities [C, B, B].

    So many positives are drawn for each anchor (with replacement), all its negatives are used.
    Averaging over violating triplets only keeps the loss from fading as most become easy.
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
    """Mean over triplets of embeddings [M, d], whose length does not matter, of
    max(0, m - cos(a, p) + cos(a, n)), satisfied triplets included."""
    if len(anchor) == 0:
        return anchor.sum() * 0
    near = F.cosine_similarity(anchor, positive, dim=-1)
    far = F.cosine_similarity(anchor, negative, dim=-1)
    return (margin - near + far).clamp(min=0).mean()


def sampled_hinge(z: Tensor, margin: float) -> Tensor:
    """`hinge_loss` of embeddings [3 M, d]: anchor, positive and negative of a triplet, then of the
    next one."""
    anchor, positive, negative = z.reshape(-1, 3, z.shape[-1]).unbind(1)
    return hinge_loss(anchor, positive, negative, margin)


def contrastive_loss(similarities: Tensor, pairs: Pairs, temperature: float) -> Tensor:
    """-log softmax of the positives among positives and negatives, of cosine similarities
    [C, B, B]; mean over the anchors that have both."""
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
