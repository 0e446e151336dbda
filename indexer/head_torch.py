"""The head over stored maps in plain torch: dequantise and `attend`. The reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.store import Store
from training.models.embedder import Embedder
from training.schema import Condition

CHUNK = 128  # images at a time: 26 MB of float32 maps and keys at 7 x 7 x 512, measured best


def embed_chunks(
    store: Store,
    model: Embedder,
    conditions: Sequence[Condition],
    rows: NDArray[np.int64],
    device: str,
    chunk: int,
) -> Iterator[list[Tensor]]:
    """Embeddings [<= chunk, d] float32 of the next rows, one tensor a condition, on `device`.

    Args:
        store: the index.
        model: any embedder, on `device`.
        conditions: label states [K] each.
        rows: rows of the index [M].
        device: where the model is.
        chunk: images at a time, at least 1.
    """
    states = [
        torch.from_numpy(np.asarray(c, dtype=np.float32)).unsqueeze(0).to(device)
        for c in conditions
    ]
    for start in range(0, len(rows), chunk):
        with torch.inference_mode():
            maps, keys = store.maps(rows[start : start + chunk], device)
            vectors = [model.attend(maps, state, keys).float() for state in states]
        yield vectors
