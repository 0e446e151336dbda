"""Nuance: what tells apart garments of the same value, a unit vector an attribute and one in all.

Not in the paper. The readout of values throws away all but what a garment is; which one it is, is
still there before it. Two parts, side by side:

- of each attribute a linear layer over the map as the attribute attends to it (V_s) and Z, taught
  by `training/losses.py` on `item_pairs`: pictures of one item against all others;
- of the whole garment what every channel of F says of its cells: the mean of the upper and of the
  lower half, and the deviation; whitened by their principal components. It is fitted, not taught:
  taught, it told apart fewer pictures that the model had not seen (benchmarks/NOTES.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STATISTICS = 3
"""Numbers a channel that the nuance of the whole garment is fitted on."""

_SMALLEST = 1e-3  # deviation of a principal component, of channels whose own is one


class AttributeNuance(nn.Module):
    """Unit vectors of `numbers` (0: none) for each of T types, side by side.

    They are read from the `channels` that are known under a type condition.
    """

    def __init__(self, types: int, channels: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        if numbers:
            self.weight = nn.Parameter(torch.randn(types, channels, numbers) * channels**-0.5)

    def forward(self, by_type: Tensor) -> Tensor:
        """[B, T, channels] -> [B, T x numbers]."""
        if not self.numbers:
            return by_type.new_zeros(by_type.shape[0], 0)  # a trace takes `len` for constant
        own = torch.einsum("btc,tcn->btn", by_type, self.weight)
        return F.normalize(own, dim=-1).flatten(1)


class GarmentNuance(nn.Module):
    """A unit vector of `numbers` (0: none) of the whole garment, from F; `fit` sets it."""

    def __init__(self, channels: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        rows = STATISTICS * channels if numbers else 0
        self.register_buffer("mean", torch.zeros(rows))
        self.register_buffer("projection", torch.zeros(rows, numbers))
        self.mean: Tensor
        self.projection: Tensor

    def statistics(self, trunk: Tensor) -> Tensor:
        """Means of both halves, which share a middle row, and deviation over the cells:
        standardised F [B, C, H, W] -> [B, 3 C]."""
        height = trunk.shape[2]
        upper = trunk[:, :, : (height + 1) // 2].mean((2, 3))
        lower = trunk[:, :, height // 2 :].mean((2, 3))
        deviation = trunk.flatten(2).var(-1, unbiased=False).clamp(min=1e-8).sqrt()
        return torch.cat([upper, lower, deviation], -1)

    def forward(self, trunk: Tensor) -> Tensor:
        """Standardised F [B, C, H, W] -> [B, numbers]."""
        if not self.numbers:
            return trunk.new_zeros(trunk.shape[0], 0)
        return F.normalize((self.statistics(trunk) - self.mean) @ self.projection, dim=-1)

    def fit(self, statistics: Tensor) -> None:
        """Whiten by the principal components of the statistics [M, 3 C] of M images.

        Components that M images cannot tell of stay zero.
        """
        mean = statistics.double().mean(0)
        covariance = torch.cov((statistics.double() - mean).T, correction=0)
        variances, axes = torch.linalg.eigh(covariance)  # ascending
        count = min(self.numbers, len(statistics) - 1, len(variances))
        kept = variances[-count:].flip(0).clamp(min=_SMALLEST**2)
        self.mean.copy_(mean)
        self.projection.zero_()
        self.projection[:, :count] = (axes[:, -count:].flip(1) / kept.sqrt()).float()
