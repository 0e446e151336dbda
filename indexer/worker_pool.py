"""Threads that each compute on one core, for work that is cut into independent chunks.

Some operations wait for memory and others for arithmetic: cores that are at different places share
a machine better than cores in lockstep, and none waits for another at the end of each operation.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

_LOCK = threading.Lock()
_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}


def worker_pool(threads: int | None = None) -> ThreadPoolExecutor:
    """A pool in whose threads torch computes on one core; the same one each time.

    Args:
        threads: how many; as many as torch uses in the calling thread by default.
    """
    own = torch.get_num_threads()
    threads = threads or own
    with _LOCK:
        key = (os.getpid(), threads)  # threads do not survive a fork
        if key not in _POOLS:
            ready = threading.Barrier(threads)
            pool = ThreadPoolExecutor(threads, "encode", _compute_alone)
            list(pool.map(lambda _: ready.wait(), range(threads)))
            torch.set_num_threads(own)  # what threads to come start with, too
            _POOLS[key] = pool
        return _POOLS[key]


def _compute_alone() -> None:
    torch.get_num_threads()  # else torch sets this thread up later and undoes the next line
    torch.set_num_threads(1)
