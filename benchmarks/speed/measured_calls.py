"""The calls whose time is measured: the only place here that knows how the engine is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.head import choose_head, embed_tensors
from indexer.views import embed
from retrieval.engine import Engine
from retrieval.picture import Picture as Picture
from retrieval.request import Terms
from training.schema import Condition

K = 10
"""Hits that are asked for."""


def exact_view(engine: Engine, condition: Condition) -> NDArray[np.float32]:
    """The gallery's embeddings [N, d] under a condition, from the stored maps."""
    return embed(engine.store, engine.model, condition, device=engine.device)


def kernel_view(
    engine: Engine, condition: Condition, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """`exact_view`, or some rows of it, by the device's kernel, also where `auto` takes torch."""
    kernel = choose_head(engine.model, engine.device).name
    return embed(engine.store, engine.model, condition, rows, device=engine.device, head=kernel)


def load_kernel(engine: Engine) -> None:
    """Have the CPU's kernel loaded, as in a process that has embedded some thousand images."""
    kernel_view(engine, engine.schema.condition(), np.arange(1))


def exact_view_there(engine: Engine, condition: Condition, out: Tensor) -> None:
    """`exact_view` into `out` [N, d] on the engine's device, where a GPU would search it."""
    parts = embed_tensors(engine.store, engine.model, [condition], device=engine.device)
    for where, (vectors,) in parts:
        out[where] = vectors
    torch.cuda.synchronize(engine.device)


def reference_view(
    engine: Engine, condition: Condition, rows: NDArray[np.int64], chunk: int = 128
) -> NDArray[np.float32]:
    """The same for some rows, by the model's own float32 layers and nothing else."""
    states = torch.from_numpy(condition).float().unsqueeze(0)
    out = []
    for start in range(0, len(rows), chunk):
        with torch.inference_mode():
            maps, keys = engine.store.maps(rows[start : start + chunk], engine.device)
            z = engine.model.attend(maps, states.to(engine.device), keys)
        out.append(z.float().cpu().numpy())
    found: NDArray[np.float32] = np.concatenate(out)
    return found


def encode(engine: Engine, image: Path) -> Picture:
    """The condition-free half of a picture."""
    return engine.encode(image)


def embed_picture(engine: Engine, picture: Picture, condition: Condition) -> NDArray[np.float32]:
    """Z [d] of a picture."""
    vector: NDArray[np.float32] = picture.embed(engine.model, [condition])[0]
    return vector


def search_existing(
    engine: Engine, picture: Picture, condition: Condition, exact: bool
) -> NDArray[np.int64]:
    """Rows of the ten nearest under a condition that has a view."""
    return engine.nearest(picture, condition, K, "exact" if exact else "auto")[0]


def search_values(
    engine: Engine, picture: Picture, terms: Terms, exact: bool = False
) -> NDArray[np.int64]:
    """Rows of the ten best by the score of named values, as `retrieve query` ranks them."""
    return engine.ranked(picture, terms, None, "exact" if exact else "auto")[0]


def forget(engine: Engine, condition: Condition) -> bool:
    """Drop the view of a condition that a search computed; whether it did, so that it was no
    search in two stages."""
    return engine.pool.forget(condition)
