"""Which conditions a training batch sees: label masks, type conditions, value conditions.

MODEL.md: training must see the states that retrieval uses, so a batch mixes label masks (for the
multi-task heads) with type conditions and value conditions, single and combined (for triplets).
Every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.schema import Schema

MIN_UNKNOWN = 0.25
"""At least this share of the labels is hidden by a mask (C-Tran, CVPR 2021)."""

UNWANTED_SHARE = 0.15
"""Share of the value conditions that also name a value that the image lacks."""


def mask_labels(labels: Tensor, schema: Schema, generator: torch.Generator) -> Tensor:
    """Hide labels: half of the images lose whole attributes, half lose single values.

    Value-wise hiding alone would let an exclusive value be read off its known siblings. How much
    is hidden is uniform in [0.25, 1] of the labels, drawn for each image.

    Returns:
        Label states [B, K], as `labels`; 0 where hidden.
    """
    batch = labels.shape[0]
    owner = torch.from_numpy(schema.attribute_of)
    hidden = MIN_UNKNOWN + (1 - MIN_UNKNOWN) * torch.rand(batch, 1, generator=generator)
    by_value = _hide(torch.rand(batch, schema.size, generator=generator), hidden)
    groups = torch.rand(batch, len(schema.attributes), generator=generator)
    by_group = _hide(groups, hidden)[:, owner]
    whole = torch.rand(batch, 1, generator=generator) < 0.5
    mask = torch.where(whole, by_group, by_value).to(labels.device)
    return labels.masked_fill(mask, 0)


def _hide(draws: Tensor, share: Tensor) -> Tensor:
    """The `share` of each row with the smallest draws, rounded up: [B, M] bool."""
    ranks = draws.argsort(1).argsort(1)
    return ranks < torch.ceil(share * draws.shape[1])


class ValueConditions(NamedTuple):
    """Value conditions drawn for a batch."""

    states: Tensor  # [M, K] float; +1 wanted, -1 unwanted
    fits: Tensor  # [B, M] int8, see `fits`


def sample_value_conditions(
    labels: Tensor, schema: Schema, count: int, generator: torch.Generator, max_values: int = 3
) -> ValueConditions:
    """Draw value conditions that at least one image of the batch fits.

    An image is drawn, then how many values, then that many of its attributes, uniformly, and one
    of its values in each: so that combinations that exist are asked for.

    Args:
        labels: label states [B, K].
        schema: attributes and values.
        count: how many; fewer come where images drawn have no positive labels.
        generator: source of all draws.
        max_values: most values in one condition, at least 1.
    """
    cpu = labels.cpu()
    rows = []
    for _ in range(count):
        image = int(torch.randint(cpu.shape[0], (1,), generator=generator))
        states = torch.zeros(schema.size)
        positive = torch.nonzero(cpu[image] == 1).flatten()
        if len(positive) == 0:
            continue
        wanted = int(torch.randint(1, max_values + 1, (1,), generator=generator))
        shuffled = positive[torch.randperm(len(positive), generator=generator)].tolist()
        first: dict[int, int] = {}  # value of each attribute
        for value in shuffled:
            first.setdefault(int(schema.attribute_of[value]), value)
        states[list(first.values())[:wanted]] = 1
        if float(torch.rand(1, generator=generator)) < UNWANTED_SHARE:
            lacking = torch.nonzero((cpu[image] == -1) & (states == 0)).flatten()
            if len(lacking):
                pick = int(torch.randint(len(lacking), (1,), generator=generator))
                states[lacking[pick]] = -1
        rows.append(states)
    stacked = torch.stack(rows) if rows else torch.zeros(0, schema.size)
    stacked = stacked.to(labels.device)
    return ValueConditions(stacked, fits(labels, stacked))


def fits(labels: Tensor, conditions: Tensor) -> Tensor:
    """Whether images, label states [B, K], satisfy value conditions [M, K].

    Returns:
        [B, M] int8: 1 all named states agree, 0 at least one is known to disagree, -1 otherwise.
    """
    known = labels.float()
    named = conditions.float().abs().sum(1)
    agreement = known @ conditions.float().T  # agreeing minus disagreeing
    decided = known.abs() @ conditions.float().abs().T  # agreeing plus disagreeing
    out = torch.full(agreement.shape, -1, dtype=torch.int8, device=labels.device)
    out[decided > agreement] = 0
    out[agreement == named] = 1
    return out
