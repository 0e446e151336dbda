"""The descriptor: all that search needs of an image, one row of bytes.

    g = [ roots of chances, K | chances, K | nuance, N | zeros, to a multiple of 16 ]

Each chance stands there twice, 0..255: as its fourth root, whose sums behave like logarithms, so
that they ask for one value *and* the other, and as itself, whose inner product with another
picture's chances is the chance to share a value. So one inner product of a query vector with the
bytes ranks by both. Nuance is unit vectors, one an attribute and one of the whole garment, each
number a byte about its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

ROOT = 0.25
"""Power of a chance whose sums behave like logarithms; chosen on `valid`, see NOTES.md."""

GARMENT = -1
"""Owner of the nuance that tells of the garment as a whole."""

_MULTIPLE = 16  # bytes; faiss reads as many at a time
_SPAN = 4.0  # a number of a unit vector of n numbers is stored within 4 / sqrt(n), or 1

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class DescriptorLayout:
    """What the bytes of a descriptor are."""

    values: int  # K
    # owner (number of an attribute, or `GARMENT`) and length of each unit vector of nuance
    groups: tuple[tuple[int, int], ...] = ()

    @cached_property
    def nuance(self) -> int:
        """N, the numbers of nuance."""
        return sum(size for _, size in self.groups)

    @cached_property
    def width(self) -> int:
        """Bytes of a descriptor."""
        return -(-(2 * self.values + self.nuance) // _MULTIPLE) * _MULTIPLE

    @property
    def roots(self) -> slice:
        """Where the roots of chances stand."""
        return slice(0, self.values)

    @property
    def plain(self) -> slice:
        """Where the chances themselves stand."""
        return slice(self.values, 2 * self.values)

    @property
    def told(self) -> slice:
        """Where nuance stands."""
        return slice(2 * self.values, 2 * self.values + self.nuance)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """Owner of each number of nuance, [N] int64."""
        return np.array([owner for owner, size in self.groups for _ in range(size)], dtype=np.int64)

    @cached_property
    def spans(self) -> Floats:
        """Largest number that can be stored at each place of the nuance, [N] float32 in 0..1."""
        spans = [min(_SPAN / np.sqrt(size), 1) for _, size in self.groups for _ in range(size)]
        return np.array(spans, dtype=np.float32)

    def pack(self, chances: Floats, nuance: Floats) -> Bytes:
        """Descriptors [M, width] of the probability of every value [M, K] in 0..1 and of unit
        vectors side by side [M, N]."""
        out = np.zeros((len(chances), self.width), dtype=np.uint8)
        chances = np.clip(chances, 0, 1)
        out[:, self.roots] = np.rint(255 * chances**ROOT)
        out[:, self.plain] = np.rint(255 * chances)
        out[:, self.told] = np.rint(127.5 + 127.5 * np.clip(nuance / self.spans, -1, 1))
        return out

    def chances(self, descriptors: Bytes) -> Floats:
        """Chances of descriptors [M, width]: [M, K] float32 in 0..1, within 0.004."""
        plain = descriptors[:, self.plain] * np.float32(1 / 255)
        # Small ones are better told by their roots.
        found: Floats = np.where(plain < 0.1, _OF_ROOT[descriptors[:, self.roots]], plain)
        return found

    def nuance_of(self, descriptors: Bytes) -> Floats:
        """Nuance of descriptors [M, width]: [M, N] float32."""
        codes = descriptors[:, self.told].astype(np.float32)
        numbers: Floats = (codes / np.float32(127.5) - 1) * self.spans
        return numbers


_OF_ROOT = ((np.arange(256) / 255) ** (1 / ROOT)).astype(np.float32)
