"""ASA, attribute-aware spatial attention: Eqs. 2-5.

Differs from the paper as MODEL.md settles it: logits are scaled by a learned temperature instead
of squashed by tanh, and V_s is the mean of the weighted map, which is Eq. 5, or its maximum. P does
not depend on the condition, so the logits of each cost one matrix-vector product:
s_l = P_l . (w_v2 * T1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Feature maps and condition embeddings to spatially attended features.

    Args:
        dim: d.
        mode: `temperature`, `tanh` (Eq. 3 to the letter) or `none` (V_s = pooled I).
        pooling: `max` or `mean` over the weighted map.
    """

    def __init__(self, dim: int, mode: str, pooling: str) -> None:
        super().__init__()
        self.mode = mode
        self.pooling = pooling
        if mode != "none":
            self.key = nn.Conv2d(dim, dim, 1)  # W_v1
            self.query = nn.Parameter(torch.randn(dim) / math.sqrt(dim))  # w_v2
        if mode == "temperature":
            self.log_temperature = nn.Parameter(torch.tensor(math.log(2.0)))

    def keys(self, maps: Tensor) -> Tensor:
        """P = tanh(W_v1 I): [B, d, H, W] -> [B, d, H, W]; without ASA the maps themselves."""
        if self.mode == "none":
            return maps
        return torch.tanh(self.key(maps))  # Eq. 2

    def weights(self, keys: Tensor, embedding: Tensor) -> Tensor:
        """Attention weights alpha, Eqs. 3 and 4.

        Args:
            keys: P [B, d, H, W].
            embedding: T1 [B or 1, C, d].

        Returns:
            [B, C, H * W], each row sums to 1; uniform without ASA.
        """
        batch, _, height, width = keys.shape
        if self.mode == "none":
            return keys.new_full((batch, embedding.shape[1], height * width), 1 / (height * width))
        u = embedding * self.query  # w_v2 * T1
        logits = u @ keys.flatten(2)  # s [B, C, L]
        if self.mode == "tanh":
            return torch.tanh(logits).softmax(-1)
        return (logits * self.log_temperature.exp()).softmax(-1)

    def forward(self, maps: Tensor, keys: Tensor, embedding: Tensor) -> Tensor:
        """V_s [B, C, d] from I [B, d, H, W], P [B, d, H, W] and T1 [B or 1, C, d]."""
        flat = maps.flatten(2)  # I [B, d, L]
        alpha = self.weights(keys, embedding)
        if self.pooling == "mean":
            # The mean over l of alpha_l I_l H W is the weighted sum of Eq. 5.
            return alpha @ flat.transpose(1, 2)
        if self.mode == "none":
            return flat.amax(-1).unsqueeze(1).expand(-1, embedding.shape[1], -1)
        # alpha_l I_l, times H W so that its scale stays that of I.
        return weighted_max(flat, alpha * flat.shape[-1])


def weighted_max(flat: Tensor, weights: Tensor) -> Tensor:
    """max over l of weights_l flat_l: [B, d, L], [B, C, L] -> [B, C, d].

    With a gradient asked for, the gradient goes through the first maximal location alone, which
    is remembered: no [B, C, d, L] is kept, and backward is a gather instead of a pass over it.
    """
    if torch.is_grad_enabled() and (flat.requires_grad or weights.requires_grad):
        out: Tensor = _WeightedMax.apply(flat, weights)  # type: ignore[no-untyped-call]
        return out
    return (weights.unsqueeze(2) * flat.unsqueeze(1)).amax(-1)


class _WeightedMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, weights: Tensor) -> Tensor:
        best = [(flat * weights[:, c, None]).max(-1) for c in range(weights.shape[1])]
        where = torch.stack([b.indices for b in best], 1)  # [B, C, d]
        ctx.save_for_backward(flat, weights, where)
        return torch.stack([b.values for b in best], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        flat, weights, where = ctx.saved_tensors
        across = where.transpose(1, 2)  # [B, d, C]
        chosen = flat.gather(2, across).transpose(1, 2)
        share = gradient * chosen
        to_weights = torch.zeros_like(weights, dtype=share.dtype).scatter_add_(2, where, share)
        share = (gradient * weights.gather(2, where)).transpose(1, 2)
        to_flat = torch.zeros_like(flat, dtype=share.dtype).scatter_add_(2, across, share)
        # Under autocast on a GPU the maps are bfloat16, the softmax's weights float32.
        return to_flat.to(flat.dtype), to_weights.to(weights.dtype)
