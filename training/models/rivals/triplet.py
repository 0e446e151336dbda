"""The triplet network: one embedding for all attributes, the plainest rival.

Average-pooled F, one linear layer; the condition is ignored, so what is alike in one attribute and
not in another cannot be told apart. As compared with in Ma et al., ASEN (AAAI 2020).
"""

from __future__ import annotations

from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder


class TripletNetwork(ConditionedEmbedder):
    """Z = W pool(F) + b under every condition; I is the pooled F [B, channels, 1, 1]."""

    architecture = "triplet"
    title = "Triplet network"
    paper = "the baseline of Ma et al., AAAI 2020"

    def build(self, channels: int) -> None:
        """The pooling and the linear layer."""
        self.reduce = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(channels, self.dim)

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], the same under each condition."""
        z: Tensor = self.output(maps.flatten(1)).unsqueeze(1)
        return z.expand(-1, conditions.shape[1], -1)
