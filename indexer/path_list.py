"""Many paths as one block of bytes, so that any name survives, also one that is not UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PathList(Sequence[str]):
    """Paths that are decoded when they are asked for.

    Args:
        blob: bytes of all paths, one after another, [total] uint8.
        offsets: where each path starts, and the end: [M + 1] int64.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, paths: Iterable[str]) -> PathList:
        """Pack paths; bytes that are not UTF-8 (Python's surrogate escapes) are kept."""
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start, stop = self.offsets[position], self.offsets[position + 1]
        return self.blob[start:stop].tobytes().decode("utf-8", "surrogateescape")
