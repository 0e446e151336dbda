"""The readout: embeddings whose cosine is the chance that two images share a value.

Not in the paper. Ranking by the cosine of Z finds much less than a classifier on the same Z knows
(benchmarks/NOTES.md): most directions of Z say nothing about the attribute asked for. Candidates
are best ranked by the probability p . p' that their value is the query's, an inner product, but one
of vectors whose length is their certainty. So each value gets an axis, p is written along the axes,
and what it lacks in length goes into a direction that only images nearly alike share: random
Fourier features (Rahimi & Recht, Random Features for Large-Scale Kernel Machines, NIPS 2007), whose
inner product is 1 for equal images and falls to 0 with their distance. Vectors have length 1 again,
and doubt is like nothing else. A little of Z itself orders those of which all is known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.schema import Schema

SCALE = 16.0
"""Scale of the cosines as logits when training starts."""

DOUBT = 0.7
"""Weight of the direction of one's own; 1 would make the cosine p . p'."""

LIKENESS = 0.2
"""Weight of Z itself."""

FREQUENCY = 8.0
"""Deviation of the random frequencies: images at 1/8 of a radius of each other are alike."""


class ValueReadout(nn.Module):
    """Prototypes of all K values, the classifier over them and the axes of the embedding.

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
        self.register_buffer("axes", _axes(schema, dim))
        self.register_buffer("frequencies", FREQUENCY * torch.randn(dim // 2, dim))
        self.axes: Tensor
        self.frequencies: Tensor

    def logits(self, z: Tensor, number: int) -> Tensor:
        """Logits of one attribute's values: [*, d] (of any length) -> [*, its values]."""
        where = self.schema.slice_of(number)
        near = F.normalize(z, dim=-1) @ F.normalize(self.prototypes[where], dim=-1).T
        return near * self.log_scale.exp() + self.bias[where]

    def forward(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Embeddings of length 1 whose cosine is how likely two images share a value.

        Of several attributes that a condition speaks of it is the mean. A condition that speaks of
        none only normalises.

        Args:
            z: [B, C, d], of any length.
            conditions: label states [B or 1, C, K] float.

        Returns:
            [B, C, d], each row of length 1.
        """
        z = F.normalize(z, dim=-1)
        named = self._named(conditions)  # [B or 1, C, T]
        count = named.sum(-1, keepdim=True)
        share = (named / count.clamp(min=1)).sqrt()
        known = torch.zeros_like(z)
        asked = [named[..., n].any(0).nonzero().flatten() for n in range(named.shape[-1])]
        for number, where in enumerate(asked):  # the conditions that speak of the attribute
            likely = self._likely(z[:, where], number)
            part = share[:, where, number].unsqueeze(-1) * likely
            known = known.index_add(1, where, part @ self.axes[self.schema.slice_of(number)])
        doubt = DOUBT * (1 - known.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
        own = doubt * self._features(z) + LIKENESS * z
        for number, where in enumerate(asked):  # the axes are for what is known
            axes = self.axes[self.schema.slice_of(number)]
            along = named[:, where, number].unsqueeze(-1) * (own[:, where] @ axes.T)
            own = own.index_add(1, where, along @ axes, alpha=-1)
        return torch.where(count > 0, F.normalize(known + own, dim=-1), z)

    def _likely(self, z: Tensor, number: int) -> Tensor:
        """Probabilities of an attribute's values, of sum 1: [*, d] -> [*, its values]."""
        logits = self.logits(z, number)
        if not self.schema.attributes[number].multi:
            return logits.softmax(-1)
        likely = logits.sigmoid()
        return likely / likely.sum(-1, keepdim=True)  # of one of them, drawn

    def _features(self, z: Tensor) -> Tensor:
        """Random Fourier features, of length 1: [*, d] -> [*, d]."""
        angles = z @ self.frequencies.T
        features = torch.cat([angles.cos(), angles.sin()], -1) / math.sqrt(angles.shape[-1])
        return F.pad(features, (0, z.shape[-1] - features.shape[-1]))  # d may be odd

    def names(self, condition: Tensor) -> list[int]:
        """Numbers of the attributes that a condition [K] speaks of."""
        numbers: list[int] = self._named(condition).nonzero().flatten().tolist()
        return numbers

    def _named(self, conditions: Tensor) -> Tensor:
        """Whether a condition names a value of each attribute: [*, K] -> [*, T] float."""
        states = conditions.abs()
        ranges = [self.schema.slice_of(n) for n in range(len(self.schema.attributes))]
        return torch.stack([states[..., where].amax(-1) for where in ranges], -1)


def _axes(schema: Schema, dim: int) -> Tensor:
    """A direction of length 1 for each value, [K, d]: orthogonal if there are enough dimensions,
    else those of one attribute are, else they are random."""
    if schema.size <= dim:
        return _orthogonal(schema.size, dim)
    return torch.cat([_orthogonal(len(a.values), dim) for a in schema.attributes])


def _orthogonal(count: int, dim: int) -> Tensor:
    return F.normalize(nn.init.orthogonal_(torch.empty(count, dim)), dim=-1)
