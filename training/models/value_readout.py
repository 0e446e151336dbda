"""The readout: what Z says of the values that are asked for.

Not in the paper. Ranking by the cosine of Z finds much less than a classifier on the same Z knows
(benchmarks/NOTES.md): most directions of Z say nothing about the attribute asked for. Candidates
are best ranked by the probability p . p' that their value is the query's, an inner product. So the
values have prototypes, and the embedding under a condition is p, of the attributes that it speaks
of.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.schema import Schema

SCALE = 16.0
"""Scale of the cosines as logits when training starts."""


class ValueReadout(nn.Module):
    """Prototypes of all K values, and the classifier over them.

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
        """Embeddings whose inner product is how likely two images share a value.

        Of several attributes that a condition speaks of it is the mean. A condition that speaks of
        none gives zeros.

        Args:
            z: [B, C, d], of any length.
            conditions: label states [B or 1, C, K] float.

        Returns:
            [B, C, K].
        """
        named = self._named(conditions)  # [B or 1, C, T]
        share = (named / named.sum(-1, keepdim=True).clamp(min=1)).sqrt()
        parts = [
            share[..., number, None] * self._likely(z, number)
            for number in range(len(self.schema.attributes))
        ]
        return torch.cat(parts, -1)

    def _likely(self, z: Tensor, number: int) -> Tensor:
        """Probabilities of an attribute's values, of sum 1: [*, d] -> [*, its values]."""
        logits = self.logits(z, number)
        if not self.schema.attributes[number].multi:
            return logits.softmax(-1)
        likely = logits.sigmoid()
        return likely / likely.sum(-1, keepdim=True)  # of one of them, drawn

    def _named(self, conditions: Tensor) -> Tensor:
        """Whether a condition names a value of each attribute: [*, K] -> [*, T] float."""
        states = conditions.abs()
        ranges = [self.schema.slice_of(n) for n in range(len(self.schema.attributes))]
        return torch.stack([states[..., where].amax(-1) for where in ranges], -1)
