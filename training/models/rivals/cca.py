"""CCA: conditional cross-attention, whose query is the attribute.

Song et al., Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in
Only a SINGLE Network (arXiv 2307.13254). Kept: cells as tokens with positions, a block of
self-attention that knows no condition, and a last block in which the condition's token, a linear
layer of it, attends to them. Left out: the vision transformer under it, for which the backbone's
cells and one block stand, since stored maps are all that is seen here; 256 numbers and 8 heads are
ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder, attribute_weights
from training.models.rivals.rpf import HEADS, TOKENS, self_attention


class CCA(ConditionedEmbedder):
    """I are tokens after self-attention [B, 256, H, W]."""

    architecture = "cca"
    title = "CCA"
    paper = "Song et al., arXiv 2307.13254"

    def build(self, channels: int) -> None:
        """The tokens, the condition's, the cross-attention, and the layers after it."""
        self.reduce = Tokens(channels, self.grid)
        self.condition = nn.Linear(len(self.schema.attributes), TOKENS)
        self.token_norm, self.norm = nn.LayerNorm(TOKENS), nn.LayerNorm(TOKENS)
        self.query_norm = nn.LayerNorm(TOKENS)
        self.cross = nn.MultiheadAttention(TOKENS, HEADS, batch_first=True)
        hidden = 2 * TOKENS
        self.mlp = nn.Sequential(nn.Linear(TOKENS, hidden), nn.GELU(), nn.Linear(hidden, TOKENS))
        self.output = nn.Linear(TOKENS, self.dim)

    def _asked(self, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The condition's token [B, C, 256], its query likewise, and the keys [B, H * W, 256]."""
        asked = self.condition(attribute_weights(conditions, self.schema))
        asked = asked.expand(len(maps), -1, -1)
        return asked, self.query_norm(asked), self.token_norm(maps.flatten(2).transpose(1, 2))

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I [B, 256, H, W]."""
        asked, query, tokens = self._asked(maps, conditions)
        x = asked + self.cross(query, tokens, tokens, need_weights=False)[0]
        z: Tensor = self.output(x + self.mlp(self.norm(x)))
        return z

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The mean of the heads' attention maps [B, H, W] under a condition [B or 1, K]."""
        _, query, tokens = self._asked(maps, condition.unsqueeze(1))
        alpha: Tensor = self.cross(query, tokens, tokens)[1]
        return alpha.reshape(len(maps), *maps.shape[2:])


class Tokens(nn.Module):
    """F [B, channels, H, W] to tokens with positions, after self-attention [B, 256, H, W]."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.token = nn.Conv2d(channels, TOKENS, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(TOKENS, *grid))
        self.block = self_attention()

    def forward(self, trunk: Tensor) -> Tensor:
        """See the class."""
        tokens = (self.token(trunk) + self.positions).flatten(2).transpose(1, 2)
        out: Tensor = self.block(tokens).transpose(1, 2)
        return out.reshape(len(trunk), TOKENS, *trunk.shape[2:])
