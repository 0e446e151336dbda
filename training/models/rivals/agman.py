"""AG-MAN: attention over two stages, gated in space and over channels, behind a mask.

Xiao and Yamasaki, Attribute-Guided Multi-Level Attention Network for Fine-Grained Fashion Retrieval
(IEEE Access 2024). Kept: the fusion of the two last stages; ASENet V2's attention with SiLU for the
attribute, the spatial gate after it, the channel gate, and the masks, which start as blocks; the
head that tells which attribute is asked for; the learned weights of both losses. Left out: layer4,
which that head reads in their code (stored maps end at the last stage), and the maximum over 2 x 2
cells of the stage below, for which the mean over a cell stands. Their code weighs a loss L as
e^s L / 2 + s, under which s only falls; here it is the usual e^-s L / 2 + s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import sampled_hinge
from training.models.embedder import ConditionedEmbedder, Given, attribute_weights
from training.models.rivals.asen import WIDTH

MARGIN = 0.2


class AGMAN(ConditionedEmbedder):
    """I is the fused map [B, d, H, W], P = tanh(norm I) likewise; d is 512 in the paper."""

    architecture = "agman"
    title = "AG-MAN"
    paper = "Xiao and Yamasaki, IEEE Access 2024"
    reads_below = True

    def build(self, channels: int) -> None:
        """The fusion, the attention, its two gates, the masks [T, d] and the head."""
        types, dim = len(self.schema.attributes), self.dim
        self.reduce = fused = Fusion(self.below, self.last_stage, dim)
        self.attribute_embedding = nn.Parameter(torch.randn(types, WIDTH))
        self.key_norm = nn.BatchNorm2d(dim)
        self.spatial_attribute = nn.Linear(WIDTH, dim)
        self.spatial_gate = nn.Conv2d(2, 1, 7, padding=3)
        self.channel_attribute = nn.Linear(WIDTH, dim)
        self.squeeze, self.excite = nn.Linear(2 * dim, dim), nn.Linear(dim, dim)
        block = torch.arange(dim) * types // dim  # whose a place of the embedding is
        own = block == torch.arange(types)[:, None]
        self.masks = nn.Parameter(torch.where(own, 1.0, 0.1))
        self.asked = nn.Linear(fused.below.out_channels, types)
        self.scales = nn.Parameter(torch.ones(2))  # s of the hinge loss and of what is asked

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(norm I): [B, d, H, W] likewise."""
        return torch.tanh(self.key_norm(maps))

    def _alpha(self, maps: Tensor, asked: Tensor, keys: Tensor | None) -> Tensor:
        """The spatial attention [B, C, H * W]; each row sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        t = F.silu(self.spatial_attribute(asked))
        return (t @ keys.flatten(2) / math.sqrt(self.dim)).softmax(-1)

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I and P [B, d, H, W]."""
        weights = attribute_weights(conditions, self.schema)
        asked = weights @ self.attribute_embedding
        alpha = self._alpha(maps, asked, keys)
        # Mean and maximum over the channels of alpha_l I_l are alpha_l times those of I_l, as
        # alpha >= 0: no [B, C, d, L] is made for them.
        told = torch.stack([maps.mean(1), maps.amax(1)], 1).flatten(2)  # [B, 2, L]
        attended = (alpha[:, :, None] * told[:, None]).reshape(-1, 2, *self.grid)
        gate = torch.sigmoid(self.spatial_gate(attended)).reshape(alpha.shape)
        summed = (alpha * gate) @ maps.flatten(2).transpose(1, 2)  # [B, C, d]
        steering = F.silu(self.channel_attribute(asked)).expand(len(maps), -1, -1)
        hidden = torch.relu(self.squeeze(torch.cat([summed, steering], -1)))
        z: Tensor = torch.sigmoid(self.excite(hidden)) * summed
        return z * (weights @ self.masks.relu())

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The spatial attention map [B, H, W] before its gate, under a condition [B or 1, K]."""
        weights = attribute_weights(condition.unsqueeze(1), self.schema)
        alpha = self._alpha(maps, weights @ self.attribute_embedding, keys)
        return alpha.reshape(len(maps), *self.grid)

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Of sampled triplets, the hinge loss and the binary cross-entropy of which attribute is
        asked for, each weighted by what is learned."""
        if given.attribute is None or not bool((kept := given.attribute >= 0).any()):
            return {}
        trunk, attribute = trunk[kept], given.attribute[kept]
        maps = self.reduce(trunk)
        z = self.attend_raw(maps, self.type_conditions[attribute, None])[:, 0].float()
        hinge, scales = sampled_hinge(z, MARGIN), self.scales
        logits = self.told_asked(trunk).float()
        right = F.one_hot(attribute, logits.shape[1]).to(logits)
        missed = F.binary_cross_entropy_with_logits(logits, right)
        return {
            "hinge": (-scales[0]).exp() * hinge / 2 + scales[0],
            "asked": (-scales[1]).exp() * missed / 2 + scales[1],
        }

    def told_asked(self, trunk: Tensor) -> Tensor:
        """Logits of which attribute is asked for [B, T], of F [B, channels, H, W] alone."""
        assert isinstance(self.reduce, Fusion)
        logits: Tensor = self.asked(self.reduce.lifted(trunk).mean((2, 3)))
        return logits


class Fusion(nn.Module):
    """[last; last + conv below] through a 1x1 convolution: F [B, channels, H, W] -> [B, d, H, W];
    the slices are of F's channels."""

    def __init__(self, below: slice, last: slice, dim: int) -> None:
        super().__init__()
        self.where, width = (below, last), last.stop - last.start
        self.below = nn.Conv2d(below.stop - below.start, width, 1)
        self.both = nn.Conv2d(2 * width, dim, 1)

    def lifted(self, trunk: Tensor) -> Tensor:
        """last + conv below, [B, last, H, W]."""
        below, last = self.where
        lifted: Tensor = trunk[:, last] + self.below(trunk[:, below])
        return lifted

    def forward(self, trunk: Tensor) -> Tensor:
        """See the class."""
        fused: Tensor = self.both(torch.cat([trunk[:, self.where[1]], self.lifted(trunk)], 1))
        return fused
