"""Many texts as one block of bytes: paths, and payload, the columns of a catalogue that are no
attributes (sku, price, title). Cells are decoded when they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PathList(Sequence[str]):
    """M texts; any name survives, also one that is not UTF-8 (Python's surrogate escapes).

    Args:
        blob: bytes of all texts, one after another, [total] uint8.
        offsets: where each starts, and the end: [M + 1] int64.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> PathList:
        """Pack texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
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


@dataclass(frozen=True)
class Column:
    """One column of the payload, by its name in the catalogue; an empty cell: nothing is known."""

    name: str
    cells: PathList

    def __len__(self) -> int:
        return len(self.cells)

    def text(self, row: int) -> str:
        """A cell as the catalogue has it."""
        return self.cells[row]

    @property
    def numeric(self) -> bool:
        """Whether every cell that is not empty is a finite decimal number, and one is there."""
        return self._parsed is not None

    def numbers(self) -> NDArray[np.float64]:
        """The cells as numbers [M] float64, NaN where empty; ValueError if not `numeric`."""
        if self._parsed is None:
            raise ValueError(f"column {self.name!r} holds cells that are no numbers")
        return self._parsed

    def equal(self, text: str) -> NDArray[np.bool_]:
        """Which cells are a text [M] bool; in a numeric column, the same number (`5` is `5.0`).

        An empty text finds empty cells.
        """
        number = parse_number(text)
        if self.numeric and number is not None:
            found: NDArray[np.bool_] = self.numbers() == number
            return found
        wanted = np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
        starts, lengths = self.cells.offsets[:-1], np.diff(self.cells.offsets)
        same: NDArray[np.bool_] = lengths == len(wanted)
        rows = np.flatnonzero(same)
        for place, byte in enumerate(wanted):
            rows = rows[self.cells.blob[starts[rows] + place] == byte]
        same[:] = False
        same[rows] = True
        return same

    @cached_property
    def _parsed(self) -> NDArray[np.float64] | None:
        out = np.full(len(self), math.nan)
        for row in np.flatnonzero(np.diff(self.cells.offsets)).tolist():
            number = parse_number(self.cells[row])
            if number is None:
                return None
            out[row] = number
        return out if np.isfinite(out).any() else None


def parse_number(text: str) -> float | None:
    """A finite decimal number, `12`, `-1.5` or `1e3`; None for anything else."""
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def pack_payload(columns: Mapping[str, Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Columns as arrays by the names that `unpack_payload` knows; none gives none."""
    if not columns:
        return {}
    parts = {"payload_names": PathList.of(columns)}
    parts |= {f"payload_{n}": PathList.of(cells) for n, cells in enumerate(columns.values())}
    out: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        out |= {name: part.blob, f"{name}_offsets": part.offsets}
    return out


def unpack_payload(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Column]:
    """The columns of `pack_payload`, by name; raises KeyError if an array is missing."""
    if "payload_names" not in arrays:
        return {}
    names = PathList(arrays["payload_names"], arrays["payload_names_offsets"])
    return {
        name: Column(name, PathList(arrays[f"payload_{n}"], arrays[f"payload_{n}_offsets"]))
        for n, name in enumerate(names)
    }
