"""M2Fashion: an image embedding conditioned on attribute labels, as MODEL.md settles the paper.

    x --backbone, pool--> F --1x1 convolution--> I         features(images): knows no condition
    I, A --ASA--> V_s --ACA--> V_c --Eq. 9--> Z            attend(I, A): cheap, once a condition

Wan et al., Learning Image Representation via Attribute-Aware Attention Networks for Fashion
Classification (MMM 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.attribute_embedding import AttributeEmbedding
from training.models.backbones import backbone_channels, build_backbone
from training.models.channel_attention import ChannelAttention
from training.models.config import ModelConfig
from training.models.spatial_attention import SpatialAttention
from training.schema import Schema


class M2Fashion(nn.Module):
    """The conditioned embedder with its two multi-task heads.

    Args:
        schema: attributes and values; K.
        config: the architecture.
        categories: C, the number of categories (0: no category head).
        weights: backbone weights, see `build_backbone`.
    """

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        categories: int = 0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.schema = schema
        self.config = config
        self.dim = config.dim
        self.grid = (config.grid, config.grid)
        self.backbone = build_backbone(config.backbone, config.stage, weights)
        self.reduce = nn.Conv2d(backbone_channels(config.backbone, config.stage), config.dim, 1)
        self.spatial_embedding = AttributeEmbedding(schema, config.dim, config.embedding)  # T1
        self.channel_embedding = AttributeEmbedding(schema, config.dim, config.embedding)  # T2
        self.spatial = SpatialAttention(config.dim, config.spatial, config.pooling)
        self.channel = ChannelAttention(config.dim, config.channel)
        self.category_head = nn.Linear(config.dim, categories) if categories else None
        self.attribute_head = nn.Linear(config.dim, schema.size)
        self.register_buffer("type_conditions", type_conditions(schema), persistent=False)
        self.type_conditions: Tensor

    def trunk(self, images: Tensor) -> Tensor:
        """F, the backbone's output pooled to the grid: [B, 3, S, S] -> [B, channels, H, W]."""
        out: Tensor = self.backbone(images)
        return F.adaptive_avg_pool2d(out, self.grid)

    def features(self, images: Tensor) -> Tensor:
        """I, independent of any condition: normalised images [B, 3, S, S] -> [B, d, H, W]."""
        maps: Tensor = self.reduce(self.trunk(images))
        return maps

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W_v1 I), the condition-free half of the attention: [B, d, H, W] likewise."""
        return self.spatial.keys(maps)

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation, for several conditions of each image.

        Args:
            maps: I [B, d, H, W].
            conditions: label states [B or 1, C, K] float.
            keys: P, if stored; computed from `maps` otherwise.

        Returns:
            [B, C, d].
        """
        keys = self.keys(maps) if keys is None else keys
        attended = self.spatial(maps, keys, self.spatial_embedding(conditions))
        out: Tensor = self.channel(attended, self.channel_embedding(conditions))
        return out

    def attend(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z, the embedding under a condition, L2-normalised.

        Args:
            maps: I [B, d, H, W].
            condition: label states [B, K], or [1, K] for one condition of all images.
            keys: P [B, d, H, W], if stored.

        Returns:
            [B, d], each row of length 1.
        """
        return F.normalize(self.attend_raw(maps, condition.unsqueeze(1), keys).squeeze(1), dim=-1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Z [B, d] of normalised images [B, 3, S, S] under a condition [B or 1, K]."""
        return self.attend(self.features(images), condition)

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        alpha = self.spatial.weights(keys, self.spatial_embedding(condition.unsqueeze(1)))
        return alpha.reshape(maps.shape[0], *maps.shape[2:])

    def value_logits(self, by_type: Tensor) -> Tensor:
        """Attribute-head logits of each value, read under its own attribute's type condition.

        Args:
            by_type: Z before normalisation under every type condition [B, T, d].

        Returns:
            [B, K].
        """
        out = []
        for number in range(len(self.schema.attributes)):
            where = self.schema.slice_of(number)
            weight, bias = self.attribute_head.weight[where], self.attribute_head.bias[where]
            out.append(F.linear(by_type[:, number], weight, bias))
        return torch.cat(out, -1)

    def predict(self, maps: Tensor, keys: Tensor | None = None) -> Tensor:
        """Probability of every value, [B, K] in 0..1.

        Softmax over the values of a single-valued attribute, sigmoid for a multi-valued one.
        """
        logits = self.value_logits(self.attend_raw(maps, self.type_conditions.unsqueeze(0), keys))
        out = []
        for number, attribute in enumerate(self.schema.attributes):
            own = logits[:, self.schema.slice_of(number)]
            out.append(own.sigmoid() if attribute.multi else own.softmax(-1))
        return torch.cat(out, -1)


def type_conditions(schema: Schema) -> Tensor:
    """Every type condition, [number of attributes, K] float."""
    rows = [torch.from_numpy(schema.type_condition(i)) for i in range(len(schema.attributes))]
    return torch.stack(rows).float() if rows else torch.zeros(0, schema.size)
