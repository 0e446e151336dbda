"""What the index asks of a model: what it sees in an image, under every attribute at once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from training.descriptor import DescriptorLayout
from training.models.conditioned import Described
from training.schema import Schema


class Embedder(Protocol):
    """A model whose descriptors can be indexed.

    Any `torch.nn.Module` with these members fits; nothing has to inherit from this class.
    """

    @property
    def schema(self) -> Schema:
        """The K values that chances are given of."""
        ...

    @property
    def layout(self) -> DescriptorLayout:
        """What the bytes of its descriptors are."""
        ...

    def trunk(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> F, the backbone's output [B, channels, H, W]."""
        ...

    def describe(self, trunk: Tensor) -> Described:
        """What descriptors are packed from, of F [B, channels, H, W]."""
        ...
