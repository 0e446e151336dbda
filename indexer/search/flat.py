"""Searching every descriptor, by faiss over codes that are the stored bytes."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.descriptor import Bytes, Floats
from training.errors import ResourceError
from training.threads import threads

_INSTALL = "pip install faiss-cpu"


def faiss_distributions() -> list[str]:
    """Names of the installed distributions that provide the module `faiss`, sorted."""
    found = importlib.util.find_spec("faiss")
    if found is None or found.origin is None:
        return []
    # They lie beside the module: to ask for all that is installed takes a cold start's tenth.
    beside = Path(found.origin).parents[1].glob("faiss_[cg]pu*.dist-info")
    return sorted({path.name.partition("-")[0].replace("_", "-") for path in beside})


@cache
def load_faiss() -> Any:
    """Import faiss, after a check that exactly one of it is installed and that it can search; else
    a ResourceError says what to install."""
    found = faiss_distributions()
    if len(found) > 1:
        raise ResourceError(
            f"{' and '.join(found)} are both installed and overwrite each other; "
            f"pip uninstall {' '.join(found)}, then {_INSTALL}"
        )
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError as error:
        what = f"{found[0]} is installed but broken ({error})" if found else "faiss is missing"
        raise ResourceError(f"{what}; {_INSTALL}") from error
    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    if index.search(np.array([[0.0, 1.0]], dtype=np.float32), 1)[1].item() != 1:
        raise ResourceError(f"the installed faiss gives wrong answers; reinstall it: {_INSTALL}")
    return faiss


Allowed = NDArray[np.bool_]
Rows = NDArray[np.int64]

_DECODED = np.array([-0.5, 255.0], np.float32)
"""Start and range of a faiss quantiser that decodes a byte x, as start + range * (x + 0.5) / 255,
to x itself. Its kind `8bit_direct` would do so too, but rounds the *query* to bytes."""

_SHARED_FROM = 20_000  # rows from which a second core is worth its start


def byte_quantiser(index: Any) -> None:
    """Let a faiss index with a `ScalarQuantizer` `8bit_uniform` decode a byte to its number."""
    load_faiss().copy_array_to_vector(_DECODED, index.sq.trained)
    index.is_trained = True


def selection(allowed: Allowed) -> Any:
    """A faiss selector of the rows that are marked, [M] bool."""
    return load_faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


class FlatBytes:
    """All M = `rows` descriptors in memory, shared out to the cores, each searching its own.

    `blocks` are descriptors [n, width] uint8 of consecutive rows, width a multiple of 16.
    """

    exact = True

    def __init__(self, blocks: Iterable[Bytes], rows: int, width: int) -> None:
        faiss = load_faiss()
        count = threads() if rows >= _SHARED_FROM else 1
        self._starts = np.linspace(0, rows, count + 1).astype(np.int64).tolist()
        self._parts = []
        codes = np.concatenate([np.empty((0, width), np.uint8), *blocks])
        for first, last in zip(self._starts[:-1], self._starts[1:], strict=True):
            index = faiss.IndexScalarQuantizer(
                width, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
            )
            byte_quantiser(index)
            index.add_sa_codes(codes[first:last])
            self._parts.append(index)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def candidates(
        self, weights: Floats, count: int, allowed: Allowed | None, exact: bool
    ) -> tuple[Floats, Rows]:
        """Scores and rows [Q, any] of the best `count` of every part, in any order; -1: none."""
        faiss = load_faiss()

        def search(number: int) -> tuple[Floats, Rows]:
            index, start = self._parts[number], self._starts[number]
            parameters = None
            if allowed is not None:
                selector = selection(allowed[start : start + index.ntotal])
                parameters = faiss.SearchParameters(sel=selector)
            scores, rows = index.search(weights, min(count, index.ntotal), params=parameters)
            return scores, np.where(rows < 0, -1, rows + start)

        found = self._threads().map(search, range(len(self._parts)))
        scores, rows = zip(*found, strict=True)
        return np.concatenate(scores, 1), np.concatenate(rows, 1)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():  # threads do not survive a fork
            alone = partial(load_faiss().omp_set_num_threads, 1)
            self._pool = os.getpid(), ThreadPoolExecutor(len(self._parts), "search", alone)
        return self._pool[1]
