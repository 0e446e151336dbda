"""Ask the system to read stored maps from the disk before a kernel gets to them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from indexer.row_addresses import Addresses, RowAddresses


def prefetch(places: RowAddresses, row_bytes: int, keys: bool) -> None:
    """Start reading rows that are not in memory; returns at once, does nothing where it cannot.

    Args:
        places: the rows, in the order in which they will be read.
        row_bytes: length of one row's I and of its P.
        keys: whether P will be read too.
    """
    libc = _libc()
    if libc is None:
        return
    for addresses in (places.maps, places.keys) if keys else (places.maps,):
        if len(addresses) and not (
            _in_memory(libc, int(addresses[0])) and _in_memory(libc, int(addresses[-1]))
        ):
            for start, length in runs(addresses, row_bytes):
                page = start // mmap.PAGESIZE * mmap.PAGESIZE
                libc.madvise(page, length + start - page, mmap.MADV_WILLNEED)


def runs(addresses: Addresses, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Address and length of each run of rows that lie one behind the other."""
    ends = addresses[:-1] + np.uint64(row_bytes)
    first = np.flatnonzero(np.concatenate([[True], addresses[1:] != ends]))
    for start, stop in zip(first, [*first[1:], len(addresses)], strict=True):
        yield int(addresses[start]), int(stop - start) * row_bytes


def _in_memory(libc: Any, address: int) -> bool:
    """Whether the page of an address is in memory; asked of a page, to learn about its chunk."""
    state = ctypes.c_ubyte()
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    failed: int = libc.mincore(page, 1, ctypes.byref(state))
    return bool(failed) or bool(state.value & 1)


@functools.cache
def _libc() -> Any | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    except (AttributeError, OSError):
        return None
    return libc
