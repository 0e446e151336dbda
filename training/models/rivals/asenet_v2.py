"""ASENet V2: what the authors of ASEN made of it in their code.

Ma et al., AAAI 2020 (the code's second model). The global branch of ASEN++ is the same without
batch norm and with an output layer, see `asenpp.py`. Differs from ASEN: one attribute
embedding, transformed for each attention; batch norm in P; logits are scaled dot products, not
squashed; no output layer, so an embedding has the channels of F.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.backbones import backbone_channels, lower_channels
from training.models.config import ModelConfig
from training.models.rivals.asen import ASEN, WIDTH


class ASENetV2(ASEN):
    """As ASEN; whatever `config.dim` says, d is the channels of F, and so `config` of a model."""

    architecture: ClassVar[str] = "asenet-v2"
    title = "ASENet V2"
    paper = "Ma et al., AAAI 2020"

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With d as of F."""
        channels = backbone_channels(config.backbone, config.stage)
        if config.lower_stages:
            channels += lower_channels(config.backbone, config.stage)
        return replace(config, dim=channels)

    def build(self, channels: int) -> None:
        """Two attentions that share the attribute embedding [T, 512]."""
        self.reduce = nn.Identity()
        self.attribute_embedding = nn.Parameter(torch.randn(len(self.schema.attributes), WIDTH))
        self.key = nn.Conv2d(channels, WIDTH, 1)
        self.key_norm = nn.BatchNorm2d(WIDTH)
        self.spatial_attribute = nn.Linear(WIDTH, WIDTH)
        self.channel_attribute = nn.Linear(WIDTH, WIDTH)
        self.squeeze = nn.Linear(channels + WIDTH, WIDTH)
        self.excite = nn.Linear(WIDTH, channels)
        self.output = nn.Identity()

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(norm(conv I)): [B, channels, H, W] -> [B, 512, H, W]."""
        return torch.tanh(self.key_norm(self.key(maps)))

    def spatial_logits(self, keys: Tensor, weights: Tensor) -> Tensor:
        """Scaled dot products [B, C, H * W] of P [B, 512, H, W] and attributes [B or 1, C, T]."""
        t = torch.tanh(self.spatial_attribute(weights @ self.attribute_embedding))
        return t @ keys.flatten(2) / math.sqrt(WIDTH)

    def beside(self, weights: Tensor) -> Tensor:
        """What stands beside the feature in the channel attention: [*, T] -> [*, 512], >= 0."""
        return torch.relu(self.channel_attribute(weights @ self.attribute_embedding))
