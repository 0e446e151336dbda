"""What a view is searched with: by its size, the recall that is wanted and the memory there is.

Measured on two cores with 253,983 x 512 vectors of a trained model's type views: one query takes
45 ms flat, 2 to 4 ms by inverted lists of bytes (IVF and SQ8) at a recall@10 of 0.98. Codes of 4
bits are as fast and cannot do it: among thousands of images of which the same value is sure they
find 11 to 52 % of the true ten, so they are for views that do not fit the memory as bytes.
`retrieve bench speed` measures this again.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from indexer.faiss_module import load_faiss
from training.errors import UsageError

FLAT = "Flat"
DEFAULT_RECALL = 0.98
"""Recall@10 against the exact search that an approximate index has to reach."""

FLAT_FLOATS = 20_000 * 512
"""Numbers in a view, rows x dim, up to which all of them are read for every query."""

IVF_FLOATS = 1_000_000 * 512
"""Numbers in a view from which codes lie in inverted lists too, where memory is short."""

MOST_LISTS = 4096
"""Inverted lists, at most: more take minutes to train."""

MOST_REFINE = 128
"""Candidates for one hit, at most: beyond, reading them costs as much as coarser codes save."""

_LARGEST_NUMBER = 1 << 24  # in a factory string; faiss would try to allocate more
_ROWS_A_LIST = 39  # that k-means asks for to place a centroid well


@dataclass(frozen=True)
class IndexChoice:
    """What to search a view with.

    Args:
        factory: `Flat`, or a faiss index factory string for the candidates.
        refine: candidates a hit that are compared exactly, the first factor to try; 1 if exact.
        nprobe: inverted lists a query reads, the first number to try; 0 without lists.
        half: vectors lie on a GPU as fp16.
        gpu: the index lies on a GPU.
        why: one sentence for a person.
    """

    factory: str
    refine: int
    nprobe: int
    half: bool
    gpu: bool
    why: str

    @property
    def flat(self) -> bool:
        """Whether every row is compared."""
        return self.factory == FLAT


def choose_index(
    rows: int,
    dim: int,
    recall: float = DEFAULT_RECALL,
    memory: int | None = None,
    gpu_memory: int = 0,
    factory: str | None = None,
) -> IndexChoice:
    """Choose what a view is searched with.

    Args:
        rows: M, vectors in the view.
        dim: d.
        recall: recall@10 that is wanted, 0..1; 1 means exact.
        memory: bytes that a view may take of the main memory; None for no bound. The flat file is
            mapped, and only counts where all of it is read for each query.
        gpu_memory: bytes that a view may take of all usable GPUs together; 0 without a GPU.
        factory: what the user wants instead, a faiss index factory string.

    Raises:
        UsageError: a recall out of its range, or a factory string that faiss does not take.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be above 0 and at most 1, not {recall}")
    size = f"{rows:,} x {dim}"
    if factory is not None:
        check_factory(factory, dim)
        why = "as asked for"
        if factory == FLAT:
            return IndexChoice(FLAT, 1, 0, False, False, why)
        return IndexChoice(factory, 2, 1 if "IVF" in factory else 0, False, False, why)
    if gpu_memory:
        chosen = _on_gpu(rows, dim, recall, gpu_memory, size)
        if chosen is not None:
            return chosen
    flat_bytes = rows * dim * 4
    if recall == 1:
        return IndexChoice(FLAT, 1, 0, False, False, "recall 1 needs every row")
    if rows * dim <= FLAT_FLOATS and (memory is None or flat_bytes <= memory):
        return IndexChoice(FLAT, 1, 0, False, False, f"{size} is small enough to read whole")
    if memory is None or rows * dim <= memory:
        lists = _lists(rows, 4)
        why = f"{size} is too much to read whole for each query"
        return IndexChoice(f"IVF{lists},SQ8", 2, max(1, lists // 128), False, False, why)
    step = _step(rows, dim, memory)
    codes = f"PQ{dim // step}x4fs"
    if rows * dim <= IVF_FLOATS:
        why = f"{size} is more than the memory holds, also as bytes"
        return IndexChoice(codes, 2, 0, False, False, why)
    lists = _lists(rows)
    why = f"{size} is too much even for codes to be read whole for each query"
    return IndexChoice(f"IVF{lists},{codes}", 2, max(1, lists // 128), False, False, why)


def check_factory(factory: str, dim: int) -> None:
    """Raise UsageError, naming the string, unless faiss makes an index of candidates from it."""
    faiss = load_faiss()
    if re.search(r"[0-9]{9}", factory) or any(
        int(number) > _LARGEST_NUMBER for number in re.findall(r"[0-9]+", factory)
    ):
        raise UsageError(f"index factory {factory!r} holds a number above {_LARGEST_NUMBER:,}")
    if "IDMap" in factory or "Refine" in factory or ",RFlat" in factory:
        raise UsageError(
            f"index factory {factory!r}: rows are numbered and candidates refined with the flat "
            "vectors anyway; leave IDMap, Refine and RFlat out"
        )
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, MemoryError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1].rpartition("Error: ")[2].rpartition(": ")[2]
        raise UsageError(
            f"index factory {factory!r} is none that faiss takes for vectors of {dim}: {reason}; "
            f"for example Flat, PQ{max(1, dim // 4)}x4fs or IVF1024,Flat"
        ) from error
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None and lists.nlist < 1:
        raise UsageError(f"index factory {factory!r} has no inverted list; give IVF1 or more")


def half_of_memory() -> int:
    """Half of the machine's memory, bytes: what views may take of it by default."""
    return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES")) // 2


def _on_gpu(rows: int, dim: int, recall: float, memory: int, size: str) -> IndexChoice | None:
    if rows * dim * 2 <= memory:
        return IndexChoice(FLAT, 1, 0, True, True, f"{size} fits the GPU memory as fp16")
    if recall < 1 and rows * dim <= memory:
        lists = _lists(rows)
        why = f"{size} fits the GPU memory as bytes only"
        return IndexChoice(f"IVF{lists},SQ8", 2, max(1, lists // 128), False, True, why)
    return None


def _step(rows: int, dim: int, memory: int | None) -> int:
    """Numbers that share a 4-bit code: 4, or more where the codes would not fit the memory."""
    steps = [s for s in (4, 8, 16, 32) if dim % s == 0]
    if not steps:
        steps = [s for s in (3, 5, 7, 2, 1) if dim % s == 0][:1]
    for step in steps:
        if memory is None or rows * (dim // step) // 2 <= memory:
            return step
    return steps[-1]


def _lists(rows: int, times: int = 1) -> int:
    """Inverted lists: the power of two next to so many times the root of the rows, as many as can
    be trained."""
    power = 1 << round(math.log2(max(1.0, times * math.sqrt(rows))))
    return max(1, min(power, rows // _ROWS_A_LIST, MOST_LISTS))
