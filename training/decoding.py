"""Decoding many pictures in worker processes, in a given order.

Workers are spawned, not forked: a FAISS index or an OpenMP pool that was used before a fork hangs
the child. They hand over uint8; a broken picture comes back as a reason, never as an exception.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training.errors import DataError
from training.images import read_image_file
from training.preprocessing import Preprocessing

SERIAL_LIMIT = 256
"""Up to this many pictures are decoded in the calling process: workers take seconds to start."""


@dataclass(frozen=True)
class Decoded:
    """One picture as a worker hands it over.

    Args:
        row: number that it was asked for by.
        pixels: uint8 [3, S, S]; None if it could not be read.
        digest: SHA-256 of the file's bytes, 32 bytes; empty if it could not be read.
        size: bytes of the file.
        mtime_ns: time of last change.
        reason: why it could not be read, else empty.
    """

    row: int
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None
    digest: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    reason: str = ""


@dataclass(frozen=True)
class DecodedBatch:
    """What could be read of a batch, in order, and what could not.

    Args:
        pictures: the readable ones, without their pixels' being repeated here as a stack.
        pixels: uint8 [len(pictures), 3, S, S].
        failures: the unreadable ones.
    """

    pictures: tuple[Decoded, ...]
    pixels: Tensor
    failures: tuple[Decoded, ...]

    @property
    def rows(self) -> list[int]:
        """Numbers of the readable pictures."""
        return [p.row for p in self.pictures]


class _Pictures(TorchDataset[Decoded]):
    def __init__(self, root: Path, paths: Sequence[str], preprocessing: Preprocessing) -> None:
        self.root, self.paths, self.preprocessing = root, paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Decoded:
        return decode_one(row, self.root / self.paths[row], self.preprocessing)


def decode_one(row: int, path: Path, preprocessing: Preprocessing) -> Decoded:
    """Read and fit one picture; a failure is returned, not raised."""
    try:
        file = read_image_file(path)
        pixels = preprocessing.decode(file.content, path.name)
    except DataError as error:
        return Decoded(row, None, reason=str(error))
    digest = hashlib.sha256(file.content).digest()
    return Decoded(row, pixels, digest, file.size, file.mtime_ns)


def decode_batches(
    root: Path,
    paths: Sequence[str],
    batches: Iterable[Sequence[int]],
    preprocessing: Preprocessing,
    workers: int,
) -> Iterator[DecodedBatch]:
    """Decode batches of rows, in their order.

    Args:
        root: folder that the paths are relative to.
        paths: every path, by row.
        batches: rows of each batch; may be a generator of many epochs, read a little ahead.
        preprocessing: size and mode.
        workers: processes; 0 decodes in this one, and so do lists of few pictures.

    Yields:
        One `DecodedBatch` for each batch, also when none of its pictures could be read.
    """
    if isinstance(batches, list) and sum(map(len, batches)) <= SERIAL_LIMIT:
        workers = 0
    loader = DataLoader(
        _Pictures(root, list(paths), preprocessing),
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of row lists will do
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
        collate_fn=_collate,
    )
    yield from loader


def _collate(pictures: list[Decoded]) -> DecodedBatch:
    good = [p for p in pictures if p.pixels is not None]
    failures = tuple(p for p in pictures if p.pixels is None)
    if not good:
        return DecodedBatch((), torch.zeros(0, 3, 1, 1, dtype=torch.uint8), failures)
    pixels = torch.from_numpy(np.stack([p.pixels for p in good if p.pixels is not None]))
    bare = tuple(Decoded(p.row, None, p.digest, p.size, p.mtime_ns) for p in good)
    return DecodedBatch(bare, pixels, failures)
