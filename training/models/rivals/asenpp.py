"""ASEN++: ASEN's attention over the picture, and once more over a crop of where it looked.

Dong et al., Fine-Grained Fashion Similarity Prediction by Attribute-Specific Embedding Learning
(TIP 2021). Kept: both branches, which share the attribute embedding, layer by layer as their code
has them (ASENet V2's attention without batch norm, with an output layer); training in two stages,
the global branch, then both, with the term that aligns them; Z = [sqrt .6 global; sqrt .4 local].
Left out: the second network, a ResNet-34 on crops of the picture, for which one convolution over
`crop.py`'s stands, since stored maps are all that is seen here; the learning rates of the second
stage, which lower the global branch's to a tenth.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import sampled_hinge
from training.models.config import ModelConfig
from training.models.embedder import ConditionedEmbedder, Given, attribute_weights
from training.models.rivals.asen import WIDTH
from training.models.rivals.crop import From, crop

LOCAL_WIDTH = 256
"""Channels of the local branch."""

GLOBAL_SHARE = 0.6
"""Of the global branch in the cosine of two embeddings."""

LOCAL, ALIGN, MARGIN = 0.1, 0.1, 0.2
"""Weights of the local hinge loss and of the alignment, and the margin of both hinge losses."""

FIRST_STAGE = 50 / 70
"""Share of the training before the local branch takes part: 50 epochs, then 20."""


class ASENpp(ConditionedEmbedder):
    """I is F from the stage below on [B, below + last, H, W], P the global tanh(conv F) [B, 512,
    H, W]; half of d is of each branch, 1024 in the paper."""

    architecture = "asenpp"
    title = "ASEN++"
    paper = "Dong et al., TIP 2021"
    reads_below = True

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With an even d."""
        return replace(super().settled(config), dim=config.dim // 2 * 2)

    def build(self, channels: int) -> None:
        """The branches and the attribute embedding [T, 512] that they share."""
        below, last = self.below, self.last_stage
        self.reduce = From(below.start)
        self.edge = below.stop - below.start  # of the two stages in I
        self.attribute_embedding = nn.Parameter(torch.randn(len(self.schema.attributes), WIDTH))
        self.whole = Branch(last.stop - last.start, WIDTH, self.dim // 2)
        self.stem = nn.Conv2d(self.edge, LOCAL_WIDTH, 3, padding=1)
        self.local = Branch(LOCAL_WIDTH, LOCAL_WIDTH, self.dim // 2)

    def keys(self, maps: Tensor) -> Tensor:
        """The global branch's P: [B, below + last, H, W] -> [B, 512, H, W]."""
        return self.whole.keys(maps[:, self.edge :])

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z [B, C, d], of length 1, of I [B, below + last, H, W], P [B, 512, H, W]."""
        alpha, asked = self._alpha(maps, conditions, keys), self._asked(conditions)
        return joined(
            self.global_part(maps, alpha, asked), self.local_part(maps, alpha, asked), GLOBAL_SHARE
        )

    def _asked(self, conditions: Tensor) -> Tensor:
        return attribute_weights(conditions, self.schema) @ self.attribute_embedding

    def _alpha(self, maps: Tensor, conditions: Tensor, keys: Tensor | None) -> Tensor:
        keys = self.keys(maps) if keys is None else keys
        return self.whole.alpha(keys, self._asked(conditions))

    def global_part(self, maps: Tensor, alpha: Tensor, asked: Tensor) -> Tensor:
        """[B, C, d / 2] of I, the attention [B, C, H * W] and the attributes [B or 1, C, 512]."""
        found: Tensor = self.whole(maps[:, self.edge :], alpha, asked)
        return found

    def local_part(self, maps: Tensor, alpha: Tensor, asked: Tensor) -> Tensor:
        """Likewise, of the crop that the attention chooses; no gradient goes through its choice."""
        images, count = alpha.shape[:2]
        seen = torch.relu(self.stem(crop(maps[:, : self.edge], alpha)))
        asked = asked.expand(images, -1, -1).reshape(images * count, 1, -1)
        found: Tensor = self.local(seen, self.local.alpha(self.local.keys(seen), asked), asked)
        return found.reshape(images, count, -1)

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The global attention map [B, H, W] under a condition [B or 1, K]; sums to 1."""
        alpha = self._alpha(maps, condition.unsqueeze(1), keys)
        return alpha.reshape(len(maps), *maps.shape[2:])

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Of sampled triplets, the hinge loss of each branch, and the sum over a triplet of how far
        apart they are."""
        if given.attribute is None or not bool((kept := given.attribute >= 0).any()):
            return {}
        maps, types = self.reduce(trunk[kept]), self.type_conditions[given.attribute[kept], None]
        alpha, asked = self._alpha(maps, types, None), self._asked(types)
        whole = self.global_part(maps, alpha, asked)[:, 0].float()
        terms = {"global": sampled_hinge(whole, MARGIN)}
        if given.progress >= FIRST_STAGE:
            local = self.local_part(maps, alpha, asked)[:, 0].float()
            apart = (1 - F.cosine_similarity(whole, local)).sum() / (len(local) // 3)
            terms |= {"local": LOCAL * sampled_hinge(local, MARGIN), "align": ALIGN * apart}
        return terms


class Branch(nn.Module):
    """Spatial, then channel attention, steered by one attribute embedding [B or 1, C, 512]."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, width, 1)
        self.spatial_attribute = nn.Linear(WIDTH, width)
        self.channel_attribute = nn.Linear(WIDTH, WIDTH)
        self.squeeze = nn.Linear(channels + WIDTH, channels // 2)
        self.excite = nn.Linear(channels // 2, channels)
        self.output = nn.Linear(channels, outputs)

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(conv F): [B, channels, H, W] -> [B, width, H, W]."""
        return torch.tanh(self.key(maps))

    def alpha(self, keys: Tensor, asked: Tensor) -> Tensor:
        """The spatial attention [B, C, H * W], of P [B, width, H, W]; each row sums to 1."""
        t = torch.tanh(self.spatial_attribute(asked))
        return (t @ keys.flatten(2) / math.sqrt(keys.shape[1])).softmax(-1)

    def forward(self, maps: Tensor, alpha: Tensor, asked: Tensor) -> Tensor:
        """[B, C, outputs] of maps [B, channels, H, W] and the attention over them."""
        attended = alpha @ maps.flatten(2).transpose(1, 2)
        steering = torch.relu(self.channel_attribute(asked)).expand(len(maps), -1, -1)
        hidden = torch.relu(self.squeeze(torch.cat([attended, steering], -1)))
        return self.output(torch.sigmoid(self.excite(hidden)) * attended)  # type: ignore[no-any-return]


def joined(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Two embeddings [*, a] and [*, b] side by side [*, a + b], so that the cosine of two such is
    `share` of the first's cosine and the rest of the second's."""
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    return torch.cat([math.sqrt(share) * first, math.sqrt(1 - share) * second], -1)
