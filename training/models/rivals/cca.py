"""CCA: conditional cross-attention, whose query is the attribute.

Song et al., Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in
Only a SINGLE Network (arXiv 2307.13254). Kept: cells as tokens with positions, a block of
self-attention that knows no condition, and a last block in which the condition's token, a linear
layer of it, attends to them. Left out: the vision transformer under it, for which the backbone's
cells and one block stand, since stored maps are all that is seen here. Ours are 256 numbers, 8
heads, that the condition's token is not added to what it attends to, and the batch norm of the
cells, without which embeddings of all pictures fell together: the hinge loss stayed at its margin.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.embedder import ConditionedEmbedder, attribute_weights
from training.models.rivals.rpf import HEADS, TOKENS, few_tokens, self_attention


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

    def _asked(self, maps: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The condition's token [B, C, 256] and the cells' [B, H * W, 256], normalised."""
        asked = self.query_norm(self.condition(attribute_weights(conditions, self.schema)))
        cells = self.token_norm(maps.flatten(2).transpose(1, 2))
        return asked.expand(len(maps), -1, -1), cells

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], of I [B, 256, H, W]."""
        query, tokens = self._asked(maps, conditions)
        x = self.cross(query, tokens, tokens, need_weights=False)[0]
        z: Tensor = self.output(x + self.mlp(self.norm(x)))
        return z

    def attention(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """The mean of the heads' attention maps [B, H, W] under a condition [B or 1, K]."""
        query, tokens = self._asked(maps, condition.unsqueeze(1))
        alpha: Tensor = self.cross(query, tokens, tokens)[1]
        return alpha.reshape(len(maps), *maps.shape[2:])


class Tokens(nn.Module):
    """F [B, channels, H, W] to tokens with positions, after self-attention [B, 256, H, W]."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.token = nn.Linear(channels, TOKENS, bias=False)
        # Over rows: over maps of one picture torch 2.13 gives a wrong gradient, as it comes back in
        # another order in memory.
        self.cell_norm = nn.BatchNorm1d(TOKENS)
        self.positions = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], TOKENS))
        self.block = self_attention()

    def forward(self, trunk: Tensor) -> Tensor:
        """See the class."""
        tokens = self.token(trunk.flatten(2).transpose(1, 2))
        tokens = self.cell_norm(tokens.flatten(0, 1)).reshape(tokens.shape) + self.positions
        with few_tokens():
            out: Tensor = self.block(tokens).transpose(1, 2)
        return out.reshape(len(trunk), TOKENS, *trunk.shape[2:])
