"""Exact searches on a GPU beside one reading of the descriptors there.

    python -m benchmarks.speed.on_gpu INDEX SIZE

Descriptors are drawn from those of an index. Prints one JSON document.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.drawn_gallery import draw_images, images_of
from indexer.search.gpu import TorchBytes
from indexer.store.store import Store, open_store
from retrieval.query_vector import CANDIDATES, draw_requests
from training.descriptor import Bytes

_BLOCK = 1 << 14
_REPEATS = 20


def drawn(store: Store, size: int) -> Iterator[Bytes]:
    """Descriptors of an endless gallery, a block at a time; after a million they come again."""
    real, kept = images_of(store), list[Bytes]()
    for start in range(0, min(size, 1_000_000), _BLOCK):
        own = draw_images(real, store.layout, store.schema, start, start + _BLOCK)
        kept.append(store.layout.pack(own.chances, own.nuance))
    left, place = size, 0
    while left:
        block = kept[place % len(kept)][:left]
        left, place = left - len(block), place + 1
        yield block


def median(call: Callable[[], object]) -> float:
    """Milliseconds of a call that ends on the GPU."""
    call()
    spent = []
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent)


def measure(folder: Path, size: int, device: str = "cuda") -> dict[str, float]:
    """Milliseconds of one query and of 64, of the best candidates of all, and of the floor."""
    store = open_store(folder)
    source = TorchBytes(drawn(store, size), size, store.layout.width, device)
    weights = draw_requests(store.layout, store.schema, store.descriptors()[:64], 1)
    half = np.arange(size) % 2 == 0
    whole = torch.zeros(size * store.layout.width, dtype=torch.uint8, device=device)
    return {
        "size": size,
        "one_ms": median(lambda: source.candidates(weights[:1], CANDIDATES, None)),
        "one_filtered_ms": median(lambda: source.candidates(weights[:1], CANDIDATES, half)),
        "batch_of_64_ms": median(lambda: source.candidates(weights, CANDIDATES, None)),
        "reading_ms": median(lambda: whole.view(torch.int64).sum()),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
