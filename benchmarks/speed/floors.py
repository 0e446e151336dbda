"""The least that the operations could cost on this machine, measured beside them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import cores
from indexer.encoding_precision import encoding_precision
from indexer.faiss_module import load_faiss
from indexer.gpu_index import faiss_gpus
from indexer.store import Store
from training.models.conditioned import ConditionedEmbedder
from training.models.m2fashion import M2Fashion
from training.precision import autocast
from training.schema import Condition, Schema

CHUNK = 2000  # images a GEMM; 512 and 1,024 are as fast

_COPIED = 1 << 30  # bytes copied at a time: far more than any cache holds
_BLOCK = 1 << 25  # bytes a thread reads at a time; smaller ones were slower


def maps_bytes(store: Store) -> int:
    """Bytes of the maps, keys and scales of a store: what a new condition has to read."""
    return sum(part.nbytes for part in _arrays(store))


def one_pass(store: Store) -> int:
    """Read every byte of maps, keys and scales once, on all cores; their sum, to be sure."""
    return read_all(_arrays(store))


def copies(count: int, device: str) -> Callable[[], None]:
    """Copying within a device's memory, as much as reads and writes `count` bytes together.

    Returns:
        Call it to copy: how long reading `count` bytes takes at the bandwidth of copying.
    """
    half = max(count // 2, 1)
    source = torch.empty(min(half, _COPIED), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        for start in range(0, half, len(source)):
            part = min(len(source), half - start)
            target[:part].copy_(source[:part])
        if device != "cpu":
            torch.cuda.synchronize(device)

    return run


def read_all(arrays: list[NDArray[Any]]) -> int:
    """Add up the bytes of contiguous arrays as 64-bit words, on all cores."""
    blocks = []
    for array in arrays:
        flat = array.reshape(-1).view(np.uint8)
        words = flat[: len(flat) // 8 * 8].view(np.int64)
        step = _BLOCK // 8
        blocks += [words[start : start + step] for start in range(0, len(words), step)]
    if len(blocks) < 2:  # starting threads would take longer
        return sum(map(_sum, blocks))
    with ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(_sum, blocks))


def _sum(words: NDArray[np.int64]) -> int:
    return int(np.add.reduce(words))  # wraps around; numpy lets go of the interpreter


def _arrays(store: Store) -> list[NDArray[Any]]:
    rows = [shard.stored for shard in store.shards]
    return [a for r in rows for part in (r.maps, r.keys) for a in (part.values, part.scales)]


def values_spoken_of(schema: Schema, condition: Condition) -> int:
    """How many values the attributes have that a condition speaks of."""
    spoken = np.unique(schema.attribute_of[np.flatnonzero(condition)]).tolist()
    return sum(len(schema.attributes[number].values) for number in spoken)


def tail_shapes(model: ConditionedEmbedder, named: int = 0) -> list[tuple[int, int]]:
    """(inputs, outputs) of the products with matrices that follow the attention.

    Channel attention and the last layer (the condition's half of W_c1 is a constant), the random
    features, and of `named` values the prototypes, their axes, and what is taken out along these.
    """
    dim = model.dim
    out = []
    if isinstance(model, M2Fashion) and model.config.channel != "none":
        out += [(dim, dim)] * 3
    if model.values is not None:
        out.append((dim, len(model.values.frequencies)))
        out += [(dim, named), (dim, named), (named, dim)] if named else []
    return out


def tail_flop(model: ConditionedEmbedder, named: int = 0) -> int:
    """Floating-point operations an image of these products."""
    return sum(2 * inputs * outputs for inputs, outputs in tail_shapes(model, named))


def tail_gemms(
    model: ConditionedEmbedder, images: int, device: str = "cpu", named: int = 0
) -> Callable[[], None]:
    """The products of `tail_shapes` for so many images, in chunks, and nothing else.

    Returns:
        Call it to compute them; operands and room for the results are there already.
    """
    generator = torch.Generator().manual_seed(0)
    operands: list[tuple[Tensor, Tensor, Tensor]] = []
    for inputs, outputs in tail_shapes(model, named):
        left = torch.randn(CHUNK, inputs, generator=generator).to(device)
        right = torch.randn(inputs, outputs, generator=generator).to(device)
        operands.append((left, right, torch.empty(CHUNK, outputs, device=device)))

    def run() -> None:
        for start in range(0, images, CHUNK):
            count = min(CHUNK, images - start)
            for left, right, out in operands:
                torch.mm(left[:count], right, out=out[:count])
        if device != "cpu":
            torch.cuda.synchronize(device)

    return run


def raw_faiss(
    vectors: NDArray[np.float32], k: int, device: str = "cpu"
) -> tuple[Callable[[NDArray[np.float32]], None], str]:
    """A flat faiss index over unit vectors [N, d], on a GPU if `device` and faiss are for one.

    Returns:
        Call it with a query [d] to search it; and what it is, in words.
    """
    faiss = load_faiss()
    index = faiss.IndexFlatIP(vectors.shape[1])
    words = "raw faiss, flat, on the same vectors"
    resources: Any = None
    if device != "cpu":
        on_gpu = faiss_gpus(faiss)[0] > 0
        words += ", on the GPU" if on_gpu else ", on the CPU: this faiss has no GPU"
        if on_gpu:
            resources = faiss.StandardGpuResources()
            index = faiss.index_cpu_to_gpu(resources, torch.device(device).index or 0, index)
    index.add(np.ascontiguousarray(vectors))

    def search(query: NDArray[np.float32], alive: Any = resources) -> None:
        index.search(query[None], k)  # its resources have to live as long as it does

    return search, words


def bare_backbone(
    model: ConditionedEmbedder, size: int, batch: int, device: str
) -> Callable[[int], None]:
    """The backbone on one batch that is there already, channels-last, as precise as in a build.

    Args:
        model: on `device`; its weights are laid out channels-last from now on.
        size: S, side of an image in pixels.
        batch: images at a time.
        device: `cpu`, `cuda` or `cuda:N`.

    Returns:
        Call it with a number of images to run it as often as that takes.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = encoding_precision("auto", "torch", device)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(device).contiguous(memory_format=torch.channels_last)

    def run(count: int) -> None:
        with torch.inference_mode(), autocast(precision, device):
            for start in range(0, count, batch):
                model.trunk(images[: min(batch, count - start)])
            if device != "cpu":
                torch.cuda.synchronize(device)

    return run
