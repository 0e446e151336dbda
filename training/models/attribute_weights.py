"""How a condition looks to a model that knows attributes but not values: a mix of one-hots."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.schema import Schema


def attribute_weights(states: Tensor, schema: Schema) -> Tensor:
    """The mean of the one-hots of the attributes that a condition speaks of.

    An attribute counts once, however many of its values are named, present (+1) or absent (-1).

    Args:
        states: conditions, label states [*, K] float in {-1, 0, +1}.
        schema: attributes and values.

    Returns:
        [*, T], T the number of attributes; rows are >= 0 and sum to 1. A type condition gives its
        attribute's one-hot, a condition that names nothing 1 / T throughout.
    """
    count = len(schema.attributes)
    owner = torch.from_numpy(schema.attribute_of).to(states.device)
    members = F.one_hot(owner, count).to(states.dtype)  # [K, T]
    spoken = ((states != 0).to(states.dtype) @ members > 0).to(states.dtype)
    nothing = (spoken.sum(-1, keepdim=True) == 0).to(states.dtype)
    spoken = spoken + nothing
    return spoken / spoken.sum(-1, keepdim=True)
