"""What the index asks of a model: features once an image, attention once a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from training.descriptor import DescriptorLayout
from training.models.folded_head import FoldedAttention, FoldedHead
from training.schema import Schema


@dataclass(frozen=True)
class Described:
    """What a model sees in B images.

    Args:
        chances: probability of every value [B, K] float.
        nuance: unit vectors side by side [B, N] float.
    """

    chances: Tensor
    nuance: Tensor


class Embedder(Protocol):
    """A conditioned embedder whose expensive half does not depend on the condition.

    Any `torch.nn.Module` with these members fits; nothing has to inherit from this class.
    """

    @property
    def schema(self) -> Schema:
        """The K values that a condition speaks of."""
        ...

    @property
    def dim(self) -> int:
        """d, the channels of a feature map and the length of an embedding."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of a feature map."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> feature maps I [B, d, H, W]."""
        ...

    def keys(self, maps: Tensor) -> Tensor:
        """Feature maps I [B, d, H, W] -> P = tanh(W_v1 I) [B, d, H, W], free of the condition."""
        ...

    def attend(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """Embed stored maps under a condition.

        Args:
            maps: feature maps I [B, d, H, W].
            condition: label states [B or 1, K] float in {-1, 0, +1}.
            keys: P [B, d, H, W] if it is at hand, else it is computed.

        Returns:
            Z [B, d], L2-normalised.
        """
        ...

    def predict(self, maps: Tensor, keys: Tensor | None = None) -> Tensor:
        """Probability of every value, [B, K] in 0..1, from feature maps I [B, d, H, W]."""
        ...

    @property
    def layout(self) -> DescriptorLayout:
        """What a descriptor of this model holds."""
        ...

    def describe(self, maps: Tensor, keys: Tensor | None = None) -> Described:
        """What a descriptor is packed from, of feature maps I [B, d, H, W]."""
        ...


@runtime_checkable
class FoldableEmbedder(Embedder, Protocol):
    """An embedder whose head can be folded, so that the fast kernels apply."""

    def fold_attention(self, condition: Tensor) -> FoldedAttention:
        """The attention over the maps under one condition, label states [K] float: the first half
        of `fold`, for who starts the pass over the maps before the rest is known."""
        ...

    def fold(self, condition: Tensor) -> FoldedHead:
        """The head under one condition, label states [K] float; equal to `attend`."""
        ...
