"""`index alone`: searching millions of embeddings, whatever made them.

The vectors lie in a mapped file, as a view's do; an index over them is built in chunks and never
holds all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import memory_bytes
from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import read_all
from benchmarks.speed.measured_calls import K, exact_view
from benchmarks.speed.measured_process import output_of
from benchmarks.speed.row import Row
from benchmarks.speed.sphere import sphere, vectors_of
from benchmarks.speed.timing import paired
from indexer.approximate import ApproximateSource, tune
from indexer.atomic import temporary_file
from indexer.exact_search import FlatSource, search_approximately, search_exactly
from indexer.faiss_module import load_faiss
from indexer.index_choice import DEFAULT_RECALL, choose_index
from retrieval.engine import Engine

FLAT = "index alone, flat"
PQ = "index alone, PQ fast-scan"
IVF = "index alone, IVF and bytes"

_QUERIES = 100


def index_rows(bench: Bench) -> list[Row]:
    """Up to three rows a size: all vectors read, all 4-bit codes read, some lists of bytes read,
    which is what the engine chooses from some size on."""
    engine = Engine.open(bench.source, bench.device)
    real = exact_view(engine, engine.schema.type_condition(0))
    name = f"vectors-{engine.store.manifest.content[:12]}-{bench.seed}.f32"
    file = bench.work / name
    whole = sphere(real, max(bench.index_sizes), file, bench.seed)
    queries = vectors_of(real, len(real) + np.arange(_QUERIES), bench.seed + 1)
    out = []
    for size in bench.index_sizes:
        vectors = whole[:size]
        if vectors.nbytes <= memory_bytes("cpu") // 2:
            out.append(_flat(vectors, queries))
        out.append(_coded(PQ, file, vectors, queries, _codes(vectors)))
        chosen = choose_index(size, vectors.shape[1])
        if not chosen.flat:
            out.append(_coded(IVF, file, vectors, queries, chosen.factory))
    return out


def _codes(vectors: NDArray[np.float32]) -> str:
    return f"PQ{vectors.shape[1] // 4}x4fs"


def _flat(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> Row:
    source = FlatSource(vectors)
    times = paired(
        lambda n: search_exactly(source, vectors, queries[n : n + 1], K),
        lambda n: read_all([vectors]),
        min(20, len(queries)),
    )
    return Row(
        what=FLAT,
        size=len(vectors),
        value=times.value * 1000,
        unit="ms",
        floor=times.floor * 1000,
        ratio=times.ratio,
        recall=1.0,
        against="one pass over the vectors",
        repeats=len(times.seconds),
        bytes_read=vectors.nbytes,
        details={"chosen": choose_index(len(vectors), vectors.shape[1]).factory},
    )


def _coded(
    what: str, file: Path, vectors: NDArray[np.float32], queries: NDArray[np.float32], factory: str
) -> Row:
    """Of the first vectors in a file, which are mapped."""
    rows, dim = vectors.shape
    choice = choose_index(rows, dim, factory=factory)
    index, built = _built(file, rows, dim, factory)
    tuned = tune(index, vectors, choice, DEFAULT_RECALL)
    source = ApproximateSource(index, factory, tuned.refine, tuned.nprobe, 0)
    count = min(tuned.refine * K, len(vectors))
    found: dict[int, NDArray[np.int64]] = {}

    def search(number: int) -> None:
        query = queries[number : number + 1]
        found[number] = search_approximately(source, vectors, query, K, count)[1][0]

    times = paired(search, lambda n: index.search(queries[n : n + 1], count), len(queries))
    right = search_exactly(FlatSource(vectors), vectors, queries, K)[1]
    shares = [len({*found[n].tolist()} & {*right[n].tolist()}) / K for n in range(len(queries))]
    return Row(
        what=what,
        size=len(vectors),
        value=times.value * 1000,
        unit="ms",
        floor=times.floor * 1000,
        ratio=times.ratio,
        recall=float(np.mean(shares)),
        against="raw faiss on the same codes, its candidates not compared again",
        repeats=len(times.seconds),
        peak_bytes=int(built["bytes"]),
        details={
            "factory": factory,
            "chosen": choose_index(rows, dim).factory,
            "refine": tuned.refine,
            "nprobe": tuned.nprobe,
            "build_seconds": built["seconds"],
            "code_bytes": index_bytes(factory, rows, dim),
        },
    )


def _built(file: Path, rows: int, dim: int, factory: str) -> tuple[Any, dict[str, float]]:
    """A faiss index over the first vectors of a file, and the seconds and bytes it took."""
    with temporary_file(file.parent) as out:
        arguments = [str(file), str(rows), str(dim), factory, str(out)]
        told: dict[str, float] = json.loads(
            output_of(["-m", "benchmarks.speed.index_memory", *arguments])
        )
        return load_faiss().read_index(str(out)), told


def index_bytes(factory: str, rows: int, dim: int) -> int:
    """Bytes of an index of bytes, or of 4-bit codes, one for four numbers; with lists, their ids
    and centroids besides."""
    codes = rows * dim if factory.endswith("SQ8") else rows * (dim // 4) // 2
    if not factory.startswith("IVF"):
        return codes
    lists = int(factory[3 : factory.index(",")])
    return codes + rows * 8 + lists * dim * 4
