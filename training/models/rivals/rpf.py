"""RPF: a region and a patch of it for each attribute, contrasted with what lies around the region.

Dong et al., From Region to Patch: Attribute-Aware Foreground-Background Contrastive Learning for
Fine-Grained Fashion Retrieval (SIGIR 2023). Kept: the region's attention, and its one layer norm
and MLP, which the background (the cells as much as they are not attended) shares; a patch branch
that cross-attends to tokens of the crop; the hinge losses of both and E-InfoNCE; training in two
stages, the region, then all; Z = [sqrt .7 region; sqrt .3 patch]. Left out: the ViT-B/16 that sees
the crop at 224 pixels, for which two blocks of 256 over `crop.py`'s cells stand, and with it the
patch branch's width of 768; the lower learning rate of the region in the second stage.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.losses import sampled_hinge
from training.models.backbones import backbone_channels
from training.models.config import ModelConfig
from training.models.embedder import ConditionedEmbedder, Given, attribute_weights
from training.models.rivals.asen import WIDTH
from training.models.rivals.asenpp import joined
from training.models.rivals.crop import From, crop, cropped

TOKENS, HEADS = 256, 8
"""Width and heads of the patch branch."""

REGION_SHARE = 0.7
"""Of the region in the cosine of two embeddings."""

PATCH, CONTRAST, MARGIN = 0.1, 0.04, 0.2
"""Weights of the patch's hinge loss and of E-InfoNCE, and the margin of both hinge losses."""

AROUND, TEMPERATURE = 12.0, 0.07
"""Weight of the backgrounds in E-InfoNCE, and what its cosines are divided by."""

FIRST_STAGE = 0.5
"""Share of the training before the patch takes part."""


class RPF(ConditionedEmbedder):
    """I is F from the stage below on [B, below + last, H, W], P [B, 512, H, W]; whatever
    `config.dim` says, d is twice the channels of the last stage."""

    architecture = "rpf"
    title = "RPF"
    paper = "Dong et al., SIGIR 2023"
    reads_below = True

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With d as of the last stage."""
        dim = 2 * backbone_channels(config.backbone, config.stage)
        return replace(super().settled(config), dim=dim)

    def build(self, channels: int) -> None:
        """Region, background and patch, and the attribute embedding [T, 512]."""
        below, last = self.below, self.last_stage
        self.reduce = From(below.start)
        self.edge = below.stop - below.start  # of the two stages in I
        width = last.stop - last.start
        self.attribute_embedding = nn.Parameter(torch.randn(len(self.schema.attributes), WIDTH))
        self.attribute_norm, self.cell_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(width)
        self.key, self.query = nn.Linear(width, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, width))
        self.patch = Patch(self.edge, cropped(self.grid[0]) ** 2, width)

    def _cells(self, maps: Tensor) -> Tensor:
        """The last stage's cells, normalised: [B, below + last, H, W] -> [B, H * W, last]."""
        cells: Tensor = self.cell_norm(maps[:, self.edge :].flatten(2).transpose(1, 2))
        return cells

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W cells): [B, below + last, H, W] -> [B, 512, H, W]."""
        keys = torch.tanh(self.key(self._cells(maps))).transpose(1, 2)
        return keys.reshape(len(maps), WIDTH, *maps.shape[2:])

    def _asked(self, conditions: Tensor) -> Tensor:
        return attribute_weights(conditions, self.schema) @ self.attribute_embedding

    def _alpha(self, maps: Tensor, conditions: Tensor, keys: Tensor | None) -> Tensor:
        """The spatial attention [B, C, H * W]; each row sums to 1."""
        keys = self.keys(maps) if keys is None else keys
        query = torch.tanh(self.query(self.attribute_norm(self._asked(conditions))))
        return (query @ keys.flatten(2) / math.sqrt(WIDTH)).softmax(-1)

    def _finished(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.mlp(self.norm(x)))
        return out

    def region(self, maps: Tensor, alpha: Tensor) -> Tensor:
        """[B, C, last] of what is attended, alpha [B, C, H * W]."""
        return self._finished(self.project(alpha @ self._cells(maps)))

    def background(self, maps: Tensor, alpha: Tensor) -> Tensor:
        """[B, C, last] of what is not."""
        rest = (1 - alpha) / (1 - alpha).sum(-1, keepdim=True)
        return self._finished(rest @ self._cells(maps))

    def _patch(self, maps: Tensor, alpha: Tensor, conditions: Tensor) -> Tensor:
        images, count = alpha.shape[:2]
        seen = crop(maps[:, : self.edge], alpha.detach())
        asked = self._asked(conditions).expand(images, -1, -1).reshape(images * count, 1, -1)
        found: Tensor = self.patch(seen, asked)
        return found.reshape(images, count, -1)

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z [B, C, d], of length 1, of I [B, below + last, H, W], P [B, 512, H, W]."""
        alpha = self._alpha(maps, conditions, keys)
        patch = self._patch(maps, alpha, conditions)
        return joined(self.region(maps, alpha), patch, REGION_SHARE)

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The region's attention map [B, H, W] under a condition [B or 1, K]; sums to 1."""
        alpha = self._alpha(maps, condition.unsqueeze(1), keys)
        return alpha.reshape(len(maps), *maps.shape[2:])

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Of sampled triplets, the hinge losses of region and patch, and E-InfoNCE."""
        if given.attribute is None or not bool((kept := given.attribute >= 0).any()):
            return {}
        maps, attribute = self.reduce(trunk[kept]), given.attribute[kept]
        asked = self.type_conditions[attribute, None]
        alpha = self._alpha(maps, asked, None)
        region = self.region(maps, alpha)[:, 0].float()
        terms = {"region": sampled_hinge(region, MARGIN)}
        if given.progress >= FIRST_STAGE:
            patch = self._patch(maps, alpha, asked)[:, 0].float()
            around = self.background(maps, alpha)[:, 0].float()
            shown = (given.labels[kept] == 1).float() * asked[:, 0].abs()  # of the attribute asked
            same = (shown @ shown.T > 0) | torch.eye(
                len(maps), dtype=torch.bool, device=maps.device
            )
            rivals = attribute[:, None] == attribute
            terms["patch"] = PATCH * sampled_hinge(patch, MARGIN)
            terms["contrast"] = CONTRAST * e_infonce((region, patch, around), same, rivals)
        return terms


class Patch(nn.Module):
    """Tokens of a crop [N, channels, H, W], cross-attended by an attribute's embedding [N, 1, 512]:
    [N, outputs]."""

    def __init__(self, channels: int, cells: int, outputs: int) -> None:
        super().__init__()
        self.token = nn.Linear(channels, TOKENS)
        self.positions = nn.Parameter(0.02 * torch.randn(cells, TOKENS))
        self.blocks = nn.Sequential(*(self_attention() for _ in range(2)))
        self.query, self.norm = nn.Linear(WIDTH, TOKENS), nn.LayerNorm(TOKENS)
        self.cross = nn.MultiheadAttention(TOKENS, HEADS, batch_first=True)
        self.project, self.last_norm = nn.Linear(TOKENS, outputs), nn.LayerNorm(outputs)
        self.mlp = nn.Sequential(nn.Linear(outputs, WIDTH), nn.GELU(), nn.Linear(WIDTH, outputs))

    def forward(self, maps: Tensor, asked: Tensor) -> Tensor:
        """See the class."""
        tokens = self.token(maps.flatten(2).transpose(1, 2)) + self.positions
        with few_tokens():
            tokens = self.blocks(tokens)
        tokens, query = self.norm(tokens), self.norm(self.query(asked))
        x = self.project(self.cross(query, tokens, tokens, need_weights=False)[0])
        out: Tensor = self.last_norm(x + self.mlp(self.last_norm(x)))
        return out.squeeze(1)


def few_tokens() -> AbstractContextManager[None]:
    """Attention without the fused kernel, whose gradient takes a CPU twice the time for so few."""
    return sdpa_kernel(SDPBackend.MATH)


def self_attention() -> nn.TransformerEncoderLayer:
    """A block of `TOKENS`, `HEADS` heads, GELU and layer norms before its two parts."""
    return nn.TransformerEncoderLayer(
        TOKENS, HEADS, 2 * TOKENS, 0.0, "gelu", batch_first=True, norm_first=True
    )


def e_infonce(parts: tuple[Tensor, Tensor, Tensor], same: Tensor, rivals: Tensor) -> Tensor:
    """-log(P / (P + N + 12 B)), mean over N regions: of sums of exp(cosine / 0.07) with patches of
    the same attribute and value (P), with the others (N), and with the backgrounds of the same
    attribute (B).

    Args:
        parts: regions, patches and backgrounds, each [N, d].
        same: whether a region and a patch have attribute and value in common, [N, N] bool; at
            least one in each row.
        rivals: whether a region and a background have the attribute in common, [N, N] bool.
    """
    region, patch, around = (F.normalize(part, dim=-1) for part in parts)
    logits = region @ patch.T / TEMPERATURE
    against = (region @ around.T / TEMPERATURE + math.log(AROUND)).masked_fill(~rivals, -torch.inf)
    positive = logits.masked_fill(~same, -torch.inf).logsumexp(-1)
    return (torch.cat([logits, against], -1).logsumexp(-1) - positive).mean()
