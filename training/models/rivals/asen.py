"""ASEN: spatial, then channel attention, both steered by an attribute.

Ma et al., Fine-Grained Fashion Similarity Learning by Attribute-Specific Embedding Network (AAAI
2020), with the tanh after the attribute's layer that the authors' code has. What M2Fashion builds
upon; it sees attributes where M2Fashion sees values. Differs from the paper: a condition that
speaks of several attributes is the mean of their one-hots, and F has the grid of the config.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder, attribute_weights

WIDTH = 512
"""Channels of P and of the hidden layer of the channel attention, whatever the backbone."""


class ASEN(ConditionedEmbedder):
    """I is F itself [B, channels, H, W], P = tanh(conv I) [B, 512, H, W]."""

    architecture: ClassVar[str] = "asen"
    title = "ASEN"
    paper = "Ma et al., AAAI 2020"

    def build(self, channels: int) -> None:
        """Two attentions with an attribute layer each, and the output layer."""
        attributes = len(self.schema.attributes)
        self.reduce = nn.Identity()
        self.key = nn.Conv2d(channels, WIDTH, 1)
        self.spatial_attribute = nn.Linear(attributes, WIDTH, bias=False)
        self.logit = nn.Linear(WIDTH, 1)  # the convolution to one channel
        self.channel_attribute = nn.Linear(attributes, channels, bias=False)
        self.squeeze = nn.Linear(2 * channels, WIDTH)
        self.excite = nn.Linear(WIDTH, channels)
        self.output: nn.Module = nn.Linear(channels, self.dim)

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(conv I): [B, channels, H, W] -> [B, 512, H, W]."""
        return torch.tanh(self.key(maps))

    def spatial_logits(self, keys: Tensor, weights: Tensor) -> Tensor:
        """What the softmax over cells is taken of, [B, C, H * W], of P [B, 512, H, W] and
        `attribute_weights` [B or 1, C, T]."""
        # The convolution of P * t is P . (w * t): one product of matrices, and no [B, C, 512, L].
        u = torch.tanh(self.spatial_attribute(weights)) * self.logit.weight[0]
        return torch.tanh(u @ keys.flatten(2) + self.logit.bias)

    def beside(self, weights: Tensor) -> Tensor:
        """What stands beside the feature in the channel attention: [*, T] -> [*, M], >= 0."""
        return torch.relu(self.channel_attribute(weights))

    def _alpha(self, maps: Tensor, weights: Tensor, keys: Tensor | None) -> Tensor:
        """The spatial attention [B, C, H * W]; each row sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        return self.spatial_logits(keys, weights).softmax(-1)

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I [B, channels, H, W], P [B, 512, H, W]."""
        weights = attribute_weights(conditions, self.schema)
        alpha = self._alpha(maps, weights, keys)
        attended = alpha @ maps.flatten(2).transpose(1, 2)  # [B, C, channels]
        steering = self.beside(weights).expand(len(maps), -1, -1)
        hidden = torch.relu(self.squeeze(torch.cat([attended, steering], -1)))
        gate = torch.sigmoid(self.excite(hidden))
        out: Tensor = self.output(gate * attended)
        return out

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1."""
        weights = attribute_weights(condition.unsqueeze(1), self.schema)
        return self._alpha(maps, weights, keys).reshape(len(maps), *maps.shape[2:])
