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
        schema: attributes and values; C is the number of attributes.
    """
    own = [labels[:, schema.slice_of(number)] == 1 for number in range(len(schema.attributes))]
    share = torch.stack([_share(has) for has in own])
    return _pairs(share, torch.stack([has.any(1) for has in own]))


def value_pairs(fits: Tensor) -> Pairs:
    """Under C value conditions: an image that fits is alike another that fits, unlike one that
    does not. Images that do not fit anchor nothing: they may differ in every way.

    Args:
        fits: [B, C] int8 in {1, 0, -1}.
    """
    yes, no = (fits == 1).T, (fits == 0).T
    return Pairs(_without_self(yes[:, :, None] & yes[:, None, :]), yes[:, :, None] & no[:, None, :])


def literal_pairs(labels: Tensor, conditions: int) -> Pairs:
    """The paper's literal rule, repeated for C conditions: alike when any value at all is shared.

    Args:
        labels: label states [B, K].
        conditions: C.
    """
    has = labels == 1
    pairs = _pairs(_share(has)[None], has.any(1)[None])
    shape = (conditions, -1, -1)
    return Pairs(pairs.positive.expand(shape), pairs.negative.expand(shape))


def item_pairs(shows: Tensor) -> Pairs:
    """Pictures of one thing are alike, whatever its values; all others are unlike; C = 1.

    Args:
        shows: number of what each picture shows [B] int64, -1 where that is not known.
    """
    known = shows >= 0
    return _pairs((known[:, None] & (shows[:, None] == shows))[None], known[None])


def _share(has: Tensor) -> Tensor:
    """Whether two images share a value: [B, values] bool -> [B, B]."""
    return (has.float() @ has.float().T) > 0


def _pairs(alike: Tensor, known: Tensor) -> Pairs:
    """Unlike [C, B, B] is what is not alike, of two images [C, B] of which something is known."""
    both = known[:, :, None] & known[:, None, :]
    return Pairs(_without_self(alike), both & ~alike)


def _without_self(pairs: Tensor) -> Tensor:
    return pairs & ~torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
