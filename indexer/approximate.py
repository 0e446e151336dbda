"""An approximate index over a view's vectors: trained, filled, tuned and searched.

It only names candidates; `exact_search` compares them with the flat vectors. How many it takes, and
how many inverted lists, follows from a recall target, measured on the view's own vectors.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.atomic import as_resource_error
from indexer.exact_search import FlatSource, best_of
from indexer.faiss_module import load_faiss
from indexer.index_choice import MOST_REFINE, IndexChoice
from training.errors import CorruptStoreError, UsageError

HITS = 10
"""The k of the recall@k that is measured."""

_SEED = 0
_CHUNK = 16_384  # rows at a time: 32 MB of 512 floats
_TRAINED_ON = 65_536  # rows, at least: 134 MB of 512 floats
_TRAINED_ON_MOST = 262_144
_ROWS_A_LIST = 40
_QUERIES_SHARED, _LISTS_SHARED = 0, 1  # parallel_mode of IndexIVF
_QUERIES = 256  # of the view's own vectors that recall is measured with


@dataclass(frozen=True)
class Tuning:
    """What a recall target needs.

    Args:
        refine: candidates a hit.
        nprobe: inverted lists a query reads; 0 without lists.
        recall: recall@10 measured with them, 0..1.
        reached: whether the target is reached, by a standard error at least.
    """

    refine: int
    nprobe: int
    recall: float
    reached: bool


class ApproximateSource:
    """Candidates from an approximate index.

    Args:
        index: a trained and filled faiss index.
        factory: the string that it was made from.
        refine: candidates a hit.
        nprobe: inverted lists a query reads; 0 without lists.
        nbytes: its size.
    """

    def __init__(self, index: Any, factory: str, refine: int, nprobe: int, nbytes: int) -> None:
        self.what, self.refine, self.nbytes = factory, refine, nbytes
        self.error: float | None = None
        self.most = int(index.ntotal)
        self._index = index
        self._lists = load_faiss().try_extract_index_ivf(index)
        _set_nprobe(index, nprobe)

    def candidates(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines by its codes and rows [Q, count], best first; -1 where it knows too few."""
        if self._lists is not None:  # threads share out queries or, of fewer queries, the lists
            few = len(queries) < load_faiss().omp_get_max_threads()
            self._lists.parallel_mode = _LISTS_SHARED if few else _QUERIES_SHARED
        scores, rows = self._index.search(np.ascontiguousarray(queries), count)
        return scores, rows

    def close(self) -> None:
        """Free the codes."""
        self._index = self._lists = None


def build(vectors: NDArray[np.float32], factory: str) -> Any:
    """Train a faiss index on a sample of a view and add all of its rows.

    Memory beyond the index: the sample, at most 262,144 rows, and one chunk.

    Args:
        vectors: unit vectors [N, d] float32, as a rule mapped.
        factory: index factory string, checked.

    Returns:
        A faiss index, metric inner product, ids 0..N-1.

    Raises:
        UsageError: if the index cannot be trained on so few rows.
    """
    faiss = load_faiss()
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    lists = faiss.try_extract_index_ivf(index)
    wanted = max(_TRAINED_ON, 0 if lists is None else _ROWS_A_LIST * lists.nlist)
    sample = _sample(vectors, min(wanted, _TRAINED_ON_MOST))
    try:
        _train(faiss, index, sample)
        del sample
        for start in range(0, len(vectors), _CHUNK):
            index.add(np.array(vectors[start : start + _CHUNK]))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("failed: ")[2]
        raise UsageError(
            f"index factory {factory!r} does not work for {len(vectors):,} vectors ({reason}); "
            "give another one, or leave it to be chosen"
        ) from error
    return index


def tune(index: Any, vectors: NDArray[np.float32], choice: IndexChoice, target: float) -> Tuning:
    """Find the fewest candidates, and inverted lists, with which an index reaches a recall target.

    Recall@10: of the ten nearest others of a vector, the share that is among the candidates; one
    that is as near as the tenth counts. The mean over 256 vectors has to be above the target by its
    standard error, so that the sample's luck does not decide. Graphs (HNSW, which is never chosen)
    find the neighbours of their own vectors more easily than those of a query: theirs is flattered.

    Args:
        index: filled.
        vectors: unit vectors [N, d] float32.
        choice: where to start.
        target: recall@10, 0..1.

    Returns:
        What reaches the target, else the most that was tried.
    """
    own = np.sort(np.random.default_rng(_SEED).permutation(len(vectors))[:_QUERIES])
    hits = min(HITS, len(vectors) - 1)
    if hits < 1:
        return Tuning(1, choice.nprobe, 1.0, True)
    queries = np.array(vectors[own])
    tenth = _tenth(vectors, queries, own, hits)
    refines = list(_growing(choice.refine, MOST_REFINE, 2))
    lists = load_faiss().try_extract_index_ivf(index)

    def measured(refine: int, nprobe: int) -> Tuning:
        share = _shares(index, vectors, queries, own, tenth, hits, refine)
        recall, luck = float(share.mean()), float(share.std() / np.sqrt(len(share)))
        return Tuning(refine, nprobe, recall, recall - luck >= target)

    most = Tuning(1, 0, 0.0, False)
    for nprobe in [0] if lists is None else list(_growing(choice.nprobe, lists.nlist, 1.4)):
        _set_nprobe(index, nprobe)
        most = measured(refines[-1], nprobe)
        if most.reached:  # then with how few candidates?
            fewer = (measured(refine, nprobe) for refine in refines[:-1])
            return next((tuning for tuning in fewer if tuning.reached), most)
    return most


def write_index(index: Any, path: Path) -> None:
    """Write a faiss index to a new file; raises ResourceError."""
    faiss = load_faiss()
    failed: list[OSError] = []

    with as_resource_error(path), path.open("wb") as handle:

        def write(data: bytes) -> int:
            try:
                return handle.write(data)
            except OSError as error:  # faiss would make a RuntimeError of it
                failed.append(error)
                raise

        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(write, 1 << 20))
        except Exception as error:
            raise (failed[0] if failed else error) from None


def read_index(content: mmap.mmap, path: Path, rows: int, dim: int) -> Any:
    """Read a faiss index from a mapped file whose content has been checked.

    Raises:
        CorruptStoreError: if it is no index of `rows` vectors [`dim`]; the message names `path`.
    """
    faiss = load_faiss()
    position = 0  # of this call alone: several threads may read

    def read(count: int) -> bytes:
        nonlocal position
        part = content[position : position + count]
        position += len(part)
        return part

    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(read, 1 << 20))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CorruptStoreError(
            f"{path} is not a faiss index ({reason}); run build-index again"
        ) from error
    if (index.ntotal, index.d) != (rows, dim):
        raise CorruptStoreError(
            f"{path} holds {index.ntotal} x {index.d} vectors instead of {rows} x {dim}; "
            "run build-index again"
        )
    return index


def _sample(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if count >= len(vectors):
        return np.array(vectors)
    rows = np.random.default_rng(_SEED).choice(len(vectors), count, replace=False)
    return np.array(vectors[np.sort(rows)])  # sorted: the file is read once, forwards


def _train(faiss: Any, index: Any, sample: NDArray[np.float32]) -> None:
    lists = faiss.try_extract_index_ivf(index)
    alone = lists is not None and lists.this == index.this
    if alone and isinstance(faiss.downcast_index(lists.quantizer), faiss.IndexFlat):
        lists.train_q1(len(sample), faiss.swig_ptr(sample), False, lists.metric_type)
    # The k-means of the codes are so small that threads wait for each other: on two cores that
    # others use too, 35 s instead of 1.6 s for 128 codes.
    with _one_thread(faiss):
        index.train(sample)


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _set_nprobe(index: Any, nprobe: int) -> None:
    lists = load_faiss().try_extract_index_ivf(index)
    if lists is not None and nprobe:
        lists.nprobe = nprobe


def _growing(start: int, most: int, factor: float) -> Iterator[int]:
    """`start` and ever more by a factor; `most` last."""
    value = max(1, start)
    while value < most:
        yield value
        value = max(value + 1, round(value * factor))
    yield most


def _tenth(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    own: NDArray[np.int64],
    hits: int,
) -> NDArray[np.float32]:
    """Cosine [Q] of the last of the `hits` nearest others of each query."""
    _, rows = FlatSource(vectors).candidates(queries, hits + 1)
    out = np.empty(len(queries), dtype=np.float32)
    for place, (query, row, found) in enumerate(zip(queries, own, rows, strict=True)):
        out[place] = best_of(vectors, query, found[found != row][:hits], hits)[0][-1]
    return out


def _shares(
    index: Any,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    own: NDArray[np.int64],
    tenth: NDArray[np.float32],
    hits: int,
    refine: int,
) -> NDArray[np.float64]:
    """The share [Q] of each query's nearest others among its candidates."""
    # As many as a query will ask for: a graph is searched the deeper the more are wanted.
    _, rows = index.search(queries, min(refine * HITS + 1, len(vectors)))
    out = np.empty(len(queries))
    for place, (query, row, found) in enumerate(zip(queries, own, rows, strict=True)):
        others = found[(found != row) & (found >= 0)][: refine * HITS]
        right = (vectors[others] * query).sum(1) >= tenth[place] - 1e-6
        out[place] = min(hits, int(right.sum())) / hits
    return out
