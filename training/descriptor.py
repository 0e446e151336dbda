"""The descriptor: all that search needs of an image, one row of bytes.

    g = [ chances: a byte a value, K | nuance: a byte a number, N | zeros, to a multiple of 16 ]

A byte x, 0..255, of a chance p stands for p ** POWER. The power lies between a logarithm, whose sum
is a product of chances, and the chance itself, whose inner product with another picture's chances
is the chance to share a value; so one inner product of a query vector with the bytes ranks by both.
Nuance is unit vectors, one for an attribute or for the whole garment, each number a byte about its
middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

POWER = 0.5
"""Of a chance, before it is rounded; chosen on `valid`, see benchmarks/NOTES.md."""

GARMENT = -1
"""Owner of the nuance that tells of the garment as a whole."""

_MULTIPLE = 16  # bytes; faiss reads as many at a time
_SPAN = 4.0  # a number of a unit vector of n numbers is stored within 4 / sqrt(n), or 1

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class DescriptorLayout:
    """What the bytes of a descriptor are.

    Args:
        values: K.
        groups: owner (number of an attribute, or `GARMENT`) and length of each unit vector of
            nuance, in their order.
    """

    values: int
    groups: tuple[tuple[int, int], ...] = ()

    @cached_property
    def nuance(self) -> int:
        """N, the numbers of nuance."""
        return sum(size for _, size in self.groups)

    @cached_property
    def width(self) -> int:
        """Bytes of a descriptor."""
        return -(-(self.values + self.nuance) // _MULTIPLE) * _MULTIPLE

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """Owner of each number of nuance, [N] int64."""
        owners, sizes = zip(*self.groups, strict=True) if self.groups else ((), ())
        return np.repeat(np.array(owners, dtype=np.int64), np.array(sizes, dtype=np.int64))

    @cached_property
    def spans(self) -> Floats:
        """Largest number that can be stored at each place of the nuance, [N] float32 in 0..1."""
        sizes = np.repeat([size for _, size in self.groups], [size for _, size in self.groups])
        spans: Floats = np.minimum(_SPAN / np.sqrt(sizes), 1).astype(np.float32)
        return spans

    def pack(self, chances: Floats, nuance: Floats) -> Bytes:
        """Descriptors of M images, [M, width] uint8.

        Args:
            chances: probability of every value [M, K] in 0..1.
            nuance: unit vectors side by side [M, N].
        """
        out = np.zeros((len(chances), self.width), dtype=np.uint8)
        out[:, : self.values] = np.rint(255 * np.clip(chances, 0, 1) ** POWER)
        shares = np.clip(nuance / self.spans, -1, 1)
        out[:, self.values : self.values + self.nuance] = np.rint(127.5 + 127.5 * shares)
        return out

    def chances(self, descriptors: Bytes) -> Floats:
        """Chances of descriptors [M, width]: [M, K] float32 in 0..1, to about one percent."""
        return _CHANCE[descriptors[:, : self.values]]

    def nuance_of(self, descriptors: Bytes) -> Floats:
        """Nuance of descriptors [M, width]: [M, N] float32."""
        codes = descriptors[:, self.values : self.values + self.nuance].astype(np.float32)
        numbers: Floats = (codes / np.float32(127.5) - 1) * self.spans
        return numbers


_CHANCE = ((np.arange(256) / 255) ** (1 / POWER)).astype(np.float32)
