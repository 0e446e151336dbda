"""What all models have in common: a backbone, an embedding conditioned on attributes, two heads.

    x --backbone, pool--> F --reduce--> I      features(images): knows no condition
    I, A --> Z                                 attend(I, A): cheap, once a condition

M2Fashion and the models it is compared with differ in `reduce`, `keys` and `attend_raw` alone, so
one trainer, one bank of stored maps and one evaluation serve them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.descriptor import DescriptorLayout
from training.models.backbones import backbone_channels, build_backbone
from training.models.config import Architecture, ModelConfig
from training.models.embedder import Described
from training.models.lower_stages import lower_channels, with_lower_stages
from training.models.value_readout import ValueReadout
from training.schema import Schema


class ConditionedEmbedder(nn.Module, ABC):
    """A conditioned embedder with its two multi-task heads; `build_model` makes one.

    Args:
        schema: attributes and values; K.
        config: the architecture.
        categories: C, the number of categories (0: no category head).
        weights: backbone weights, see `build_backbone`.
    """

    architecture: ClassVar[Architecture]
    """Its name in `ModelConfig` and in the registry."""

    title: ClassVar[str]
    """Its name in tables and prose."""

    paper: ClassVar[str]
    """Who described it, where."""

    sees_values: ClassVar[bool] = False
    """Whether an embedding depends on the values that a condition names; otherwise only on which
    attributes it speaks of."""

    reduce: nn.Module
    """F [B, channels, H, W] -> I [B, *, h, w], what is stored of an image."""

    def __init__(
        self,
        schema: Schema,
        config: ModelConfig,
        categories: int = 0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        assert config.architecture == self.architecture, "build_model chooses the class"
        self.schema = schema
        self.config = config
        self.dim = config.dim
        self.grid = (config.grid, config.grid)
        self.backbone = build_backbone(config.backbone, config.stage, weights)
        # The heads come last, so that a seed gives the layers the same weights with and without.
        own = backbone_channels(config.backbone, config.stage)
        lower = lower_channels(config.backbone, config.stage) if config.lower_stages else 0
        self.standardise: nn.Module = nn.Identity()
        if lower:  # the stages' scales differ
            self.standardise = nn.BatchNorm2d(lower + own, affine=False)
        self.last_stage = slice(lower, lower + own)
        self.build(lower + own)
        self.values: ValueReadout | None = None
        if config.readout == "values":
            self.values = ValueReadout(schema, self.dim)
        self.category_head = nn.Linear(config.dim, categories) if categories else None
        self.attribute_head = nn.Linear(config.dim, schema.size)
        self.register_buffer("type_conditions", type_conditions(schema), persistent=False)
        self.type_conditions: Tensor

    @abstractmethod
    def build(self, channels: int) -> None:
        """Make `reduce` and the layers between F, of `channels` channels, and Z."""

    def keys(self, maps: Tensor) -> Tensor:
        """P, what else of an image does not depend on the condition: [B, *, h, w]; here I."""
        return maps

    @abstractmethod
    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation, for several conditions of each image.

        Args:
            maps: I [B, *, h, w].
            conditions: label states [B or 1, C, K] float.
            keys: P, if stored; computed from `maps` otherwise.

        Returns:
            [B, C, d].
        """

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map alpha [B, H, W] under a condition [B or 1, K]; sums to 1.

        Here uniform: a model that pools by the mean looks at all cells alike.
        """
        height, width = self.grid
        return maps.new_full((maps.shape[0], height, width), 1 / (height * width))

    def trunk(self, images: Tensor) -> Tensor:
        """F, the backbone's output pooled to the grid: [B, 3, S, S] -> [B, channels, H, W]."""
        if self.config.lower_stages:
            return with_lower_stages(self.backbone, images, self.grid)
        out: Tensor = self.backbone(images)
        return F.adaptive_avg_pool2d(out, self.grid)

    def features(self, images: Tensor) -> Tensor:
        """I, independent of any condition: normalised images [B, 3, S, S] -> [B, *, h, w]."""
        return self.condense(self.trunk(images))

    def condense(self, trunk: Tensor) -> Tensor:
        """I of F: [B, channels, H, W] -> [B, *, h, w]."""
        maps: Tensor = self.reduce(self.standardise(trunk))
        return maps

    def readout(self, z: Tensor, conditions: Tensor) -> Tensor:
        """Z before normalisation [B, C, d] to embeddings of length 1 under conditions
        [B or 1, C, K] float."""
        if self.values is None:
            return F.normalize(z, dim=-1)
        out: Tensor = self.values(z, conditions)
        return out

    def attend(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z, the embedding under a condition, L2-normalised.

        Args:
            maps: I [B, *, h, w].
            condition: label states [B, K], or [1, K] for one condition of all images.
            keys: P, if stored.

        Returns:
            [B, d], each row of length 1.
        """
        conditions = condition.unsqueeze(1)
        return self.readout(self.attend_raw(maps, conditions, keys), conditions).squeeze(1)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Z [B, d] of normalised images [B, 3, S, S] under a condition [B or 1, K]."""
        return self.attend(self.features(images), condition)

    def value_logits(self, by_type: Tensor) -> Tensor:
        """Logits of each value, read under its own attribute's type condition.

        Args:
            by_type: Z before normalisation under every type condition [B, T, d].

        Returns:
            [B, K].
        """
        types = range(len(self.schema.attributes))
        return torch.cat([self.logits_of(by_type[:, n], n) for n in types], -1)

    def logits_of(self, z: Tensor, number: int) -> Tensor:
        """Logits of one attribute's values [B, n] from Z before normalisation [B, d]."""
        if self.values is not None:
            return self.values.logits(z, number)
        where = self.schema.slice_of(number)
        return F.linear(z, self.attribute_head.weight[where], self.attribute_head.bias[where])

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

    @property
    def layout(self) -> DescriptorLayout:
        """What a descriptor of this model holds."""
        return DescriptorLayout(self.schema.size, ((-1, 32),))

    def describe(self, maps: Tensor, keys: Tensor | None = None) -> Described:
        """Stand-in until nuance is learned: the mean of I, 32 numbers of it."""
        nuance = F.pad(maps.mean((2, 3)), (0, 32))[:, :32]
        return Described(self.predict(maps, keys), F.normalize(nuance, dim=-1))

    def parameters_of_embedder(self) -> int:
        """How many parameters an embedding needs: with the backbone, without the two heads."""
        heads = [*self.attribute_head.parameters()]
        if self.category_head is not None:
            heads += self.category_head.parameters()
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in heads)


def type_conditions(schema: Schema) -> Tensor:
    """Every type condition, [number of attributes, K] float."""
    rows = [torch.from_numpy(schema.type_condition(i)) for i in range(len(schema.attributes))]
    return torch.stack(rows).float() if rows else torch.zeros(0, schema.size)
