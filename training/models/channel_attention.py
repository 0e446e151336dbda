"""ACA, attribute-aware channel attention: Eqs. 7 and 8, and the last layer, Eq. 9.

Differs from the paper: the inner activation is ReLU, as in ASEN; `sigmoid` is Eq. 7 to the letter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """V_s and T2 to the embedding before normalisation.

    Args:
        dim: d.
        mode: `relu`, `sigmoid` or `none` (Z = V_s, no Eq. 9).
    """

    def __init__(self, dim: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        if mode != "none":
            self.squeeze = nn.Linear(2 * dim, dim)  # W_c1
            self.excite = nn.Linear(dim, dim)  # W_c2
            self.output = nn.Linear(dim, dim)  # W, b of Eq. 9

    def forward(self, attended: Tensor, embedding: Tensor) -> Tensor:
        """V_s [B, C, d] and T2 [B or 1, C, d] -> Z [B, C, d], not normalised."""
        if self.mode == "none":
            return attended
        both = torch.cat([embedding.expand_as(attended), attended], -1)  # [T2; V_s]
        hidden = self.squeeze(both)
        hidden = torch.sigmoid(hidden) if self.mode == "sigmoid" else torch.relu(hidden)
        gate = torch.sigmoid(self.excite(hidden))  # alpha^c, Eq. 7
        return self.output(gate * attended)  # type: ignore[no-any-return]  # Eqs. 8, 9
