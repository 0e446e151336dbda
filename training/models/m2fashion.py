"""M2Fashion: an image embedding conditioned on attribute labels, as MODEL.md settles the paper.

    x --backbone, pool--> F --1x1 convolution--> I         features(images): knows no condition
    I, A --ASA--> V_s --ACA--> V_c --Eq. 9, readout--> Z   attend(I, A): cheap, once a condition

Wan et al., Learning Image Representation via Attribute-Aware Attention Networks for Fashion
Classification (MMM 2022).
"""

from __future__ import annotations

from torch import Tensor, nn

from training.models.attribute_embedding import AttributeEmbedding
from training.models.channel_attention import ChannelAttention
from training.models.conditioned import ConditionedEmbedder, Seen
from training.models.spatial_attention import SpatialAttention


class M2Fashion(ConditionedEmbedder):
    """Spatial, then channel attention, each steered by the label states of a condition."""

    architecture = "m2fashion"
    title = "M2Fashion"
    paper = "Wan et al., MMM 2022"
    sees_values = True

    def build(self, channels: int) -> None:
        """The 1x1 reduction to I [B, d, H, W], T1, T2, ASA and ACA."""
        config = self.config
        self.reduce = nn.Conv2d(channels, config.dim, 1)
        self.spatial_embedding = AttributeEmbedding(self.schema, config.dim, config.embedding)  # T1
        self.channel_embedding = AttributeEmbedding(self.schema, config.dim, config.embedding)  # T2
        self.spatial = SpatialAttention(config.dim, config.spatial, config.pooling)
        self.channel = ChannelAttention(config.dim, config.channel)

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W_v1 I), the condition-free half of the attention: [B, d, H, W] likewise."""
        return self.spatial.keys(maps)

    def see(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Seen:
        """V_s and Z before normalisation, for several conditions of each image.

        Args:
            maps: I [B, d, H, W].
            conditions: label states [B or 1, C, K] float.
            keys: P, if it is at hand; computed from `maps` otherwise.
        """
        keys = self.keys(maps) if keys is None else keys
        attended = self.spatial(maps, keys, self.spatial_embedding(conditions))
        return Seen(attended, self.channel(attended, self.channel_embedding(conditions)))

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d]; arguments as for `see`."""
        return self.see(maps, conditions, keys).z

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        alpha = self.spatial.weights(keys, self.spatial_embedding(condition.unsqueeze(1)))
        return alpha.reshape(maps.shape[0], *maps.shape[2:])
