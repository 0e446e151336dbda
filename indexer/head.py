"""The head over stored maps: embeddings of stored images under conditions, by the fastest means.

Three implementations give the same embeddings but for rounding: `torch` (any model, any device),
`numba` (a CPU kernel that reads int8 maps in place) and `triton` (the same on a GPU).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer import head_torch
from indexer.store import Rows, Store
from training.errors import ResourceError, UsageError
from training.models.embedder import Embedder, FoldableEmbedder
from training.schema import Condition

HEADS = ("torch", "numba", "triton")

_FEW = 4096
"""Images times conditions that torch embeds in a process before numba is imported: for so many,
read for the first time, it takes about as long as the import, a second."""

_by_torch = 0  # how many it has embedded so far where numba could have


@dataclass(frozen=True)
class HeadChoice:
    """An implementation of the head and, where it is not what one might expect, why."""

    name: str
    remark: str | None = None


def choose_head(
    model: Embedder, device: str = "cpu", wanted: str = "auto", images: int | None = None
) -> HeadChoice:
    """Resolve `auto`, `torch`, `numba` or `triton`.

    Args:
        model: the index's.
        device: where it is.
        wanted: `auto` takes the kernel of the device where it is installed and the model can be
            folded, else torch.
        images: how many images times conditions are to be embedded; `auto` does not load numba
            before a process has embedded a few thousand. As many as there are by default.

    Raises:
        UsageError: another word.
        ResourceError: the named one does not work here.
    """
    if wanted not in ("auto", *HEADS):
        raise UsageError(f"unknown head {wanted!r}; choose auto, {', '.join(HEADS)}")
    kernel = "numba" if device == "cpu" else "triton"
    if wanted == "torch":
        return HeadChoice("torch")
    trouble = _trouble(model, device, kernel if wanted == "auto" else wanted)
    if wanted != "auto":
        trouble = trouble or _broken(wanted)
        if trouble is not None:
            raise ResourceError(f"head {wanted}: {trouble}; choose torch or auto")
        return HeadChoice(wanted)
    if trouble is not None:
        return HeadChoice("torch", f"embedding stored maps with torch: {trouble}")
    loaded = "indexer.head_numba" in sys.modules
    if kernel == "numba" and images is not None and _by_torch + images < _FEW and not loaded:
        return HeadChoice("torch")
    trouble = _broken(kernel)
    if trouble is not None:
        return HeadChoice("torch", f"embedding stored maps with torch: {trouble}")
    return HeadChoice(kernel)


def _trouble(model: Embedder, device: str, kernel: str) -> str | None:
    if not isinstance(model, FoldableEmbedder):
        return "this model has no folded head"
    if kernel == "numba" and device != "cpu":
        return f"numba computes on the CPU and the model is on {device}"
    if kernel == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "triton needs a GPU and the model is on the CPU"
    if find_spec(kernel) is None:
        hint = '; pip install "m2fashion-retrieval[fast]" makes it ten times faster'
        return f"{kernel} is not installed" + (hint if kernel == "numba" else "")
    if kernel == "triton" and device != "cpu" and not _compiler():
        return "triton needs a C compiler, and there is neither $CC nor gcc nor clang"
    return None


def _compiler() -> bool:
    """Whether triton finds what it compiles its launchers with."""
    return "CC" in os.environ or any(map(shutil.which, ("gcc", "clang")))


@cache
def _broken(kernel: str) -> str | None:
    """Why a kernel that is installed cannot be imported, None if it can."""
    try:
        import_module(f"indexer.head_{kernel}")
    except Exception as error:  # numba beside a numpy that is too new: more than ImportError
        return f"{kernel} is installed and cannot be imported ({error})"
    return None


def embed_tensors(
    store: Store,
    model: Embedder,
    conditions: Sequence[Condition],
    rows: Rows | None = None,
    device: str = "cpu",
    head: str = "auto",
    chunk: int | None = None,
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Embed stored images under several conditions, reading each image's maps once.

    Args:
        store: the index.
        model: its model, on `device`.
        conditions: label states [K] each.
        rows: rows of the index, in the order of the result; all of them by default.
        device: where the model is.
        head: one of `HEADS` or `auto`.
        chunk: images at a time; what is fastest by default.

    Yields:
        The next places among `rows`, and unit vectors [n, d] float32 on `device` for each
        condition.

    Raises:
        UsageError: an unknown head.
        ResourceError: a head that was named does not work here.
        IndexError: if a row is not in the index.
        CorruptStoreError: if a shard is damaged.
    """
    wanted = np.arange(len(store))
    if rows is not None:
        wanted = wanted[rows] if isinstance(rows, slice) else np.asarray(rows, dtype=np.int64)
    global _by_torch
    images = len(wanted) * len(conditions)
    name = choose_head(model, device, head, images).name
    if name == "torch" or not isinstance(model, FoldableEmbedder):
        if device == "cpu" and head == "auto":
            _by_torch += images
        parts = head_torch.embed_chunks(
            store, model, conditions, wanted, device, chunk or head_torch.CHUNK
        )
    elif name == "numba":
        from indexer import head_numba

        parts = head_numba.embed_chunks(store, model, conditions, wanted, chunk)
    else:
        from indexer import head_triton

        whole = None if rows is None else wanted
        parts = head_triton.embed_chunks(store, model, conditions, whole, device, chunk)
    start = 0
    for vectors in parts:
        stop = start + len(vectors[0])
        yield slice(start, stop), vectors
        start = stop


def embed_rows(
    store: Store,
    model: Embedder,
    conditions: Sequence[Condition],
    rows: Rows | None = None,
    device: str = "cpu",
    head: str = "auto",
    chunk: int | None = None,
) -> Iterator[tuple[slice, list[NDArray[np.float32]]]]:
    """`embed_tensors` with the vectors as arrays."""
    for where, vectors in embed_tensors(store, model, conditions, rows, device, head, chunk):
        yield where, [part.cpu().numpy() for part in vectors]


def embed_arrays(
    store: Store,
    model: Embedder,
    conditions: Sequence[Condition],
    rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
    head: str = "auto",
    chunk: int | None = None,
) -> list[NDArray[np.float32]]:
    """The embeddings [M, d] of some rows, or of all, under each condition; see `embed_tensors`."""
    count = len(store) if rows is None else len(rows)
    on_gpu = device != "cpu"  # to memory that is pinned a GPU copies without waiting
    out = [
        torch.empty(count, store.dim, dtype=torch.float32, pin_memory=on_gpu) for _ in conditions
    ]
    arrays = [whole.numpy() for whole in out]
    name = choose_head(model, device, head, count * len(conditions)).name
    if name == "numba" and isinstance(model, FoldableEmbedder):
        from indexer import head_numba

        wanted = np.arange(count) if rows is None else rows
        for _ in head_numba.embed_chunks(store, model, conditions, wanted, chunk, arrays):
            pass
        return arrays
    for where, parts in embed_tensors(store, model, conditions, rows, device, head, chunk):
        for whole, part in zip(out, parts, strict=True):
            whole[where].copy_(part, non_blocking=True)
    if on_gpu:
        torch.cuda.synchronize(device)
    return arrays


def stays_on_gpu(store: Store, model: Embedder, device: str) -> bool:
    """Whether all maps stay in the memory of a GPU, so that a new condition costs milliseconds."""
    if device == "cpu" or choose_head(model, device).name != "triton":
        return False
    from indexer import device_maps

    return device_maps.resident(store, device)
