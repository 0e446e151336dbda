"""Inverted lists of descriptors: a query reads those whose centroids have the highest products.

Codes are the stored bytes, and the file is mapped. A list holds rows that requests hardly tell
apart: k-means runs in the space in which the squared distance of two rows is the mean squared
difference of their scores.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.search.flat import Allowed, Rows
from indexer.store.files import check_content, commit_file
from indexer.store.manifest import FileEntry, SearchEntry
from training.descriptor import Bytes, Floats
from training.errors import CorruptStoreError, ResourceError
from training.files import as_resource_error, temporary_file

_CHUNK = 16_384  # rows at a time
_DIMENSIONS = 32  # of the space of cells: recall as in that of all bytes, in an eighth of the time
_TRAINED_ON = 64  # rows a list, of which k-means makes the centroids
_FILTERS = 8  # whose lists are remembered
_QUERIES_SHARED, _LISTS_SHARED = 0, 1  # parallel_mode of IndexIVF

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


_DECODED = np.array([-0.5, 255.0], np.float32)
"""Start and range of a faiss quantiser that decodes a byte x, as start + range * (x + 0.5) / 255,
to x itself. Its kind `8bit_direct` would do so too, but rounds the *query* to bytes."""


def byte_quantiser(index: Any) -> None:
    """Let a faiss index with a `ScalarQuantizer` `8bit_uniform` decode a byte to its number."""
    load_faiss().copy_array_to_vector(_DECODED, index.sq.trained)
    index.is_trained = True


def selection(allowed: Allowed) -> Any:
    """A faiss selector of the rows that are marked, [M] bool."""
    return load_faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


class InvertedLists:
    """M rows in lists, of `fill_lists`; a query reads `probes` of them, with a filter
    `filtered_probes` of those that hold an allowed row."""

    def __init__(self, index: Any, probes: int, filtered_probes: int) -> None:
        self._index, self.probes, self.filtered_probes = index, probes, filtered_probes
        self.lists = int(index.nlist)
        self._filters: deque[tuple[Allowed, Allowed]] = deque(maxlen=_FILTERS)

    def candidates(
        self, weights: Floats, count: int, allowed: Allowed | None
    ) -> tuple[Floats, Rows]:
        """Scores and rows [Q, count], best first; -1: the lists that were read hold fewer."""
        faiss = load_faiss()
        few = len(weights) < faiss.omp_get_max_threads()  # threads share out queries, or lists
        self._index.parallel_mode = _LISTS_SHARED if few else _QUERIES_SHARED
        probes, filters = min(self.probes, self.lists), {}
        if allowed is not None:
            filters["sel"] = selection(allowed)
            useful = self._useful(allowed)
            probes = min(self.filtered_probes, int(useful.sum()))
            filters["quantizer_params"] = faiss.SearchParameters(sel=selection(useful))
        parameters = faiss.SearchParametersIVF(nprobe=probes, **filters)
        scores, rows = self._index.search(weights, count, params=parameters)
        return scores, rows

    def _useful(self, allowed: Allowed) -> Allowed:
        """Lists that hold an allowed row [lists] bool."""
        # Of millions of rows it takes longer than a search, and filters are asked for again.
        for other, useful in self._filters:
            if other is allowed:
                return useful
        useful = np.zeros(self.lists, dtype=bool)
        useful[self._list_of[allowed]] = True
        self._filters.append((allowed, useful))
        return useful

    def centroids(self) -> Floats:
        """The centroids of the lists, [lists, width] float32."""
        quantiser = load_faiss().downcast_index(self._index.quantizer)
        centroids: Floats = quantiser.reconstruct_n(0, self.lists)
        return centroids

    @cached_property
    def _list_of(self) -> NDArray[np.unsignedinteger[Any]]:
        return self.list_of_rows().astype(np.min_scalar_type(self.lists))

    def list_of_rows(self) -> Rows:
        """In which list each row is, [M] int64."""
        faiss, lists = load_faiss(), self._index.invlists
        out = np.empty(self._index.ntotal, dtype=np.int64)
        for number in range(self.lists):
            if size := lists.list_size(number):
                out[faiss.rev_swig_ptr(lists.get_ids(number), size)] = number
        return out


def train_cells(
    blocks: Iterable[Bytes], rows: int, lists: int, requests: Floats
) -> tuple[Floats, Floats]:
    """The space in which rows belong to the nearest centre, and the centres, by k-means.

    Of descriptors [n, width] uint8 of M >= `lists` consecutive rows, which weights of requests
    [any, width] float32 hold near or far: from bytes into that space [width, dim], and centres
    [lists, dim], float32.
    """
    # The mean of (w.x - w.y)^2 over requests w is (x - y)' E[w w'] (x - y).
    values, vectors = np.linalg.eigh(requests.T.astype(np.float64) @ requests / len(requests))
    into = (vectors * np.sqrt(np.maximum(values, 0)))[:, -_DIMENSIONS:].astype(np.float32)
    into /= max(float(np.abs(into).max()), 1e-30)
    chosen = np.zeros(rows, dtype=bool)
    chosen[np.random.default_rng(0).permutation(rows)[: _TRAINED_ON * lists]] = True
    parts, start = [], 0
    for block in blocks:
        parts.append(block[chosen[start : start + len(block)]])
        start += len(block)
    sample = np.concatenate([part @ into for part in _chunks(parts)])
    means = load_faiss().Kmeans(sample.shape[1], lists, niter=8, seed=0, min_points_per_centroid=1)
    means.train(sample)
    return into, means.centroids


def nearest_centre(blocks: Iterable[Bytes], centres: Floats, into: Floats | None = None) -> Rows:
    """The nearest of `centres` [lists, dim] to each descriptor, [rows of all blocks] int64; in the
    space of `train_cells`, or else in that of bytes."""
    near = load_faiss().IndexFlatL2(centres.shape[1])
    near.add(centres)
    parts = (part if into is None else part @ into for part in _chunks(blocks))
    found = [near.search(part, 1)[1][:, 0] for part in parts]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


def fill_lists(blocks: Iterable[Bytes], width: int, lists: Rows, count: int) -> Any:
    """A faiss `IndexIVFScalarQuantizer` of descriptors [n, width] uint8 of consecutive rows,
    each in one of `count` lists [M]. A list's centroid is the mean of what it holds, or of all."""
    faiss = load_faiss()
    quantiser = faiss.IndexFlatIP(width)
    kind, product = faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantiser, width, count, kind, product, False)
    index.referenced_objects = [quantiser]  # the index only points to it
    byte_quantiser(index)
    sums, start = np.zeros((count, width)), 0
    for part in _chunks(blocks):
        own = np.ascontiguousarray(lists[start : start + len(part)])
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(own))
        order = np.argsort(own)
        held, first = np.unique(own[order], return_index=True)
        sums[held] += np.add.reduceat(part[order], first)
        start += len(part)
    sizes = np.bincount(lists, minlength=count)[:, None]
    means = np.where(sizes, sums / np.maximum(sizes, 1), sums.sum(0) / len(lists))
    quantiser.add(means.astype(np.float32))
    return index


def commit_lists(folder: Path, index: Any) -> FileEntry:
    """Write an index of `fill_lists` as a file of the index in `folder`; raises ResourceError."""
    faiss = load_faiss()
    failed: list[OSError] = []
    with temporary_file(folder) as temporary:
        with as_resource_error(temporary), temporary.open("wb") as handle:

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
        return commit_file(temporary, folder, "search", ".faiss")


def open_lists(
    folder: Path, entry: SearchEntry, handle: io.BufferedReader, verify: bool = True
) -> InvertedLists:
    """Map the inverted lists of an index from their open file, which may be closed afterwards.

    `verify` checks its content first. Raises CorruptStoreError.
    """
    assert entry.file is not None, "a flat index has no lists"
    faiss, path = load_faiss(), folder / entry.file.name
    if verify:
        check_content(folder, entry.file, handle, quickly=True)
    # By its number, since a build may have taken the name away.
    name = f"/dev/fd/{handle.fileno()}" if os.path.isdir("/dev/fd") else str(path)
    # faiss 1.10 knows the slower of the two alone.
    mapped = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    try:
        index = faiss.read_index(name, mapped)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CorruptStoreError(
            f"{path} is not a faiss index ({reason}); run build-index again"
        ) from error
    return InvertedLists(index, entry.probes, entry.filtered_probes)


def _chunks(blocks: Iterable[Bytes]) -> Iterator[Floats]:
    for block in blocks:
        for start in range(0, len(block), _CHUNK):
            yield block[start : start + _CHUNK].astype(np.float32)
