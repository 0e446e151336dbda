"""DARN: a tree of attribute branches over one feature, and triplets of one item's pictures.

Huang et al., Cross-Domain Image Retrieval with a Dual Attribute-Aware Ranking Network (ICCV 2015).
Kept: a layer over the picture, a branch of two layers for each attribute and for the category, the
cosine triplet loss on that layer beside the pooled maps of the two last stages, each of length 1.
Under an attribute's condition an embedding is its branch. Left out: NIN, which F is here; a network
for street and one for shop pictures, since nothing here says which is which; detection; PCA.
Where nothing is known of items there are no triplets.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import category_loss, item_pairs, triplet_loss, value_loss
from training.models.config import ModelConfig
from training.models.embedder import ConditionedEmbedder, Given, attribute_weights

MARGIN, POSITIVES = 0.2, 4


class DARN(ConditionedEmbedder):
    """I is FC1 [B, 1024, 1, 1]; Z under a condition the mean of the branches that it asks for."""

    architecture = "darn"
    title = "DARN"
    paper = "Huang et al., ICCV 2015"
    teaches_heads = True
    wants_pairs = True
    reads_below = True

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With d = 512."""
        return replace(super().settled(config), dim=512)

    def build(self, channels: int) -> None:
        """FC1 of the last stage, the trunk of the tree; and its branches, the category's last."""
        own = self.last_stage.stop - self.last_stage.start
        self.reduce = FirstLayer(self.last_stage, own, 1024)
        count = len(self.schema.attributes) + 1
        self.branches = nn.ModuleList([nn.Linear(1024, self.dim) for _ in range(count)])

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d]."""
        first = maps.flatten(1)
        branches = torch.stack([b(first).relu() for b in self.branches[:-1]], 1)  # [B, T, d]
        return attribute_weights(conditions, self.schema) @ branches

    def category_logits(self, maps: Tensor) -> Tensor | None:
        """By the category's own branch."""
        branch = self.branches[-1](maps.flatten(1)).relu()
        return None if self.category_head is None else self.category_head(branch)

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Each branch's cross-entropy, and the triplets."""
        maps = self.reduce(trunk)
        by_type = self.attend_raw(maps, self.type_conditions.unsqueeze(0)).float()
        out = {"values": value_loss(self.value_logits(by_type), given.labels, self.schema)}
        named = self.category_logits(maps)
        if named is not None:
            out["categories"] = category_loss(named.float(), given.category)
        stages: tuple[slice, slice] = (self.below, self.last_stage)
        parts = [maps.flatten(1), *(trunk[:, stage].mean((2, 3)) for stage in stages)]
        z = torch.cat([F.normalize(part.float(), dim=-1) for part in parts], 1) / len(parts) ** 0.5
        pairs = item_pairs(given.shows)
        drawn = MARGIN, POSITIVES, given.generator
        return out | {"triplets": triplet_loss((z @ z.T)[None], pairs, *drawn)}


class FirstLayer(nn.Module):
    """FC1 of the mean of some channels: F [B, *, H, W] -> [B, outputs, 1, 1]."""

    def __init__(self, stage: slice, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stage = stage
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, trunk: Tensor) -> Tensor:
        """ReLU of it."""
        pooled = trunk[:, self.stage].mean((2, 3))
        return self.linear(pooled).relu()[..., None, None]  # type: ignore[no-any-return]
