"""The readout: an embedding moved towards the value prototypes that it is near.

Not in the paper. With a plain classifier or contrast, ranking by the cosine of Z finds much less
than the classifier on the same Z knows (benchmarks/NOTES.md): most directions of Z say nothing
about the attribute asked for. So each value gets a prototype, the classifier is the cosine to it,
and Z is moved towards the prototypes in proportion to their probability: one step of retrieval from
an associative memory (Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021). Where the
classifier is undecided Z stays a mixture, and what it held besides still counts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.schema import Schema

STEP = 2.0
"""How far Z, of length 1, moves: the length of the step when one value is certain."""

SCALE = 16.0
"""Scale of the cosines as logits when training starts."""


class PrototypeReadout(nn.Module):
    """Prototypes of all K values, the classifier over them and the step towards them.

    Args:
        schema: attributes and values.
        dim: d.
    """

    def __init__(self, schema: Schema, dim: int) -> None:
        super().__init__()
        self.schema = schema
        self.prototypes = nn.Parameter(torch.randn(schema.size, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.zeros(schema.size))
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def logits(self, z: Tensor, number: int) -> Tensor:
        """Logits of one attribute's values: [*, d] (of any length) -> [*, its values]."""
        where = self.schema.slice_of(number)
        near = F.normalize(z, dim=-1) @ F.normalize(self.prototypes[where], dim=-1).T
        return near * self.log_scale.exp() + self.bias[where]

    def forward(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Z, L2-normalised, moved towards the values of the attributes that a condition speaks of.

        Several attributes share the step evenly; a condition that names nothing only normalises.

        Args:
            z: [B, C, d], of any length.
            conditions: label states [B or 1, C, K] float.

        Returns:
            [B, C, d], each row of length 1.
        """
        z = F.normalize(z, dim=-1)
        named = self._named(conditions)  # [B or 1, C, T]
        share = named / named.sum(-1, keepdim=True).clamp(min=1)
        moved = z
        for number, attribute in enumerate(self.schema.attributes):
            asked = named[..., number].any(0)  # the conditions that speak of it
            if not bool(asked.any()):
                continue
            logits = self.logits(z[:, asked], number)
            if attribute.multi:
                likely = logits.sigmoid()
                likely = likely / likely.sum(-1, keepdim=True).clamp(min=1)
            else:
                likely = logits.softmax(-1)
            where = self.schema.slice_of(number)
            pull = likely @ F.normalize(self.prototypes[where], dim=-1)
            step = STEP * share[:, asked, number].unsqueeze(-1) * pull
            moved = moved.index_add(1, asked.nonzero().flatten(), step)
        return F.normalize(moved, dim=-1)

    def _named(self, conditions: Tensor) -> Tensor:
        """Whether a condition names a value of each attribute: [*, K] -> [*, T] float."""
        states = conditions.abs()
        ranges = [self.schema.slice_of(n) for n in range(len(self.schema.attributes))]
        return torch.stack([states[..., where].amax(-1) for where in ranges], -1)
