"""Nuance: what tells apart garments of the same value, a unit vector an attribute and one in all.

Not in the paper. The readout of values throws away all but what a garment is; which one it is, is
still there before it: in the map as each attribute attends to it (V_s), in Z, and in the map as a
whole. Linear layers keep what tells pictures of one item from all others; `losses/contrastive.py`
teaches them, on `item_pairs`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Nuance(nn.Module):
    """Unit vectors of T attributes, side by side, then one of the whole garment.

    Args:
        types: T.
        channels: what is known under a type condition.
        whole: channels of the map.
        numbers: of each attribute's vector, 0 for none.
        garment: numbers of the garment's, 0 for none.
    """

    def __init__(self, types: int, channels: int, whole: int, numbers: int, garment: int) -> None:
        super().__init__()
        self.numbers, self.garment_numbers = numbers, garment
        if numbers:
            scale = channels**-0.5
            self.weight = nn.Parameter(torch.randn(types, channels, numbers) * scale)
        if garment:
            self.garment = nn.Linear(whole, garment, bias=False)

    def forward(self, by_type: Tensor, maps: Tensor) -> Tensor:
        """[B, T, channels] and I [B, whole, H, W] -> [B, N], N = T x numbers + garment."""
        parts = []
        if self.numbers:
            own = torch.einsum("btc,tcn->btn", by_type, self.weight)
            parts.append(F.normalize(own, dim=-1).flatten(1))
        if self.garment_numbers:
            parts.append(F.normalize(self.garment(maps.mean((2, 3))), dim=-1))
        return torch.cat(parts, -1) if parts else maps.new_zeros(len(maps), 0)
