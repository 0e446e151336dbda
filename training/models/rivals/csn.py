"""CSN: a learned mask for each attribute over one embedding.

Veit et al., Conditional Similarity Networks (CVPR 2017), in the form that Ma et al. compare ASEN
with (AAAI 2020): average-pooled F, a linear layer, ReLU masks that start at N(0.9, 0.7). A
condition that speaks of several attributes takes the mean of their masks, which neither paper does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder, attribute_weights


class CSN(ConditionedEmbedder):
    """Z = (W pool(F) + b) * relu(mask); I is the pooled F [B, channels, 1, 1]."""

    architecture = "csn"
    title = "CSN"
    paper = "Veit et al., CVPR 2017"

    def build(self, channels: int) -> None:
        """The pooling, the linear layer and the masks [T, d]."""
        self.reduce = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(channels, self.dim)
        self.masks = nn.Parameter(0.9 + 0.7 * torch.randn(len(self.schema.attributes), self.dim))

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I [B, channels, 1, 1]."""
        mask = attribute_weights(conditions, self.schema) @ self.masks.relu()  # [B or 1, C, d]
        z: Tensor = self.output(maps.flatten(1)).unsqueeze(1)
        return z * mask
