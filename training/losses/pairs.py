"""Which pairs of a batch are alike and which are not, under each condition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.schema import Schema


@dataclass(frozen=True)
class Pairs:
    """Relations within a batch under C conditions.

    Args:
        positive: [C, B, B] bool, the two images are alike (never an image with itself).
        negative: [C, B, B] bool, they are known not to be. A pair can be neither.
    """

    positive: Tensor
    negative: Tensor


def type_pairs(labels: Tensor, schema: Schema) -> Pairs:
    """Under each type condition: alike when a value is shared, unlike when both are labelled
    in the attribute and share none.

    Args:
        labels: label states [B, K].
        schema: attributes and values.

    Returns:
        Pairs for C = number of attributes.
    """
    positives, negatives = [], []
    for number in range(len(schema.attributes)):
        own = labels[:, schema.slice_of(number)]
        has = (own == 1).float()
        labelled = (own == 1).any(1)
        share = (has @ has.T) > 0
        both = labelled[:, None] & labelled[None, :]
        positives.append(share)
        negatives.append(both & ~share)
    return Pairs(_without_self(torch.stack(positives)), torch.stack(negatives))


def value_pairs(fits: Tensor) -> Pairs:
    """Under value conditions: an image that fits is alike another that fits, unlike one that does
    not. Images that do not fit anchor nothing: they may differ in every way.

    Args:
        fits: [B, M] int8 in {1, 0, -1}.

    Returns:
        Pairs for C = M.
    """
    yes, no = (fits == 1).T, (fits == 0).T
    return Pairs(_without_self(yes[:, :, None] & yes[:, None, :]), yes[:, :, None] & no[:, None, :])


def literal_pairs(labels: Tensor, conditions: int) -> Pairs:
    """The paper's literal rule: alike when any value at all is shared, unlike when none is.

    Args:
        labels: label states [B, K].
        conditions: C, how many conditions the rule is repeated for.

    Returns:
        Pairs for C conditions.
    """
    has = (labels == 1).float()
    share = (has @ has.T) > 0
    labelled = (labels == 1).any(1)
    both = labelled[:, None] & labelled[None, :]
    positive = _without_self(share[None]).expand(conditions, -1, -1)
    return Pairs(positive, (both & ~share)[None].expand(conditions, -1, -1))


def item_pairs(shows: Tensor) -> Pairs:
    """Pictures of one thing are alike, whatever its values; all others are unlike.

    Args:
        shows: number of what each picture shows [B] int64, -1 where that is not known.

    Returns:
        Pairs for C = 1.
    """
    known = shows >= 0
    both = known[:, None] & known[None, :]
    same = shows[:, None] == shows[None, :]
    return Pairs(_without_self((both & same)[None]), (both & ~same)[None])


def _without_self(pairs: Tensor) -> Tensor:
    return pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
