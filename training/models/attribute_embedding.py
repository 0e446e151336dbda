"""The embedding of a condition: T = f(A), Eq. 1 (T1, for ASA) and Eq. 6 (T2, for ACA).

Differs from the paper: +1 and -1 have tables of their own, each averaged over its count, and
there is a bias. With W A alone the hundreds of known negatives of a large schema swamp the few
positives, and the all-unknown condition is exactly zero, which switches attention off.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.schema import Schema


class AttributeEmbedding(nn.Module):
    """Condition [*, K] -> T [*, d].

    Args:
        schema: gives K, and which values belong together: the rows of one attribute start near
            each other, so that a type condition's mean is not washed out by averaging.
        dim: d.
        mode: `tables` or `paper` (tanh(W A)).
    """

    def __init__(self, schema: Schema, dim: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.positive = nn.Parameter(self._start(schema, dim))
        if mode == "tables":
            self.negative = nn.Parameter(-self._start(schema, dim))
            self.bias = nn.Parameter(torch.randn(dim) * 0.5)

    @staticmethod
    def _start(schema: Schema, dim: int) -> Tensor:
        types = torch.randn(len(schema.attributes), dim)
        owner = torch.from_numpy(schema.attribute_of)
        return 0.7 * types[owner] + 0.3 * torch.randn(schema.size, dim)

    def forward(self, condition: Tensor) -> Tensor:
        """Label states [*, K] float in {-1, 0, +1} -> T [*, d] in (-1, 1)."""
        if self.mode == "paper":
            return torch.tanh(condition @ self.positive)
        known = (condition > 0).to(condition.dtype)
        unwanted = (condition < 0).to(condition.dtype)
        mean_known = known @ self.positive / known.sum(-1, keepdim=True).clamp(min=1)
        mean_unwanted = unwanted @ self.negative / unwanted.sum(-1, keepdim=True).clamp(min=1)
        return torch.tanh(mean_known + mean_unwanted + self.bias)
