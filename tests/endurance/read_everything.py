"""What an index says, as one hash a part: two indexes that say the same have the same hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexer.search.index import open_search
from indexer.store.store import open_store
from training.checkpoint import load_checkpoint


def read_everything(folder: Path) -> dict[str, str]:
    """Read every file of an index the way queries do.

    Returns:
        Hash of each part.

    Raises:
        RetrieveError: as the parts' readers.
    """
    store = open_store(folder)
    payload = [(name, *column.cells) for name, column in store.payload.items()]
    out = {
        "paths": _hash(*(path.encode("utf-8", "surrogateescape") for path in store.paths)),
        "gallery": _hash(store.rows, store.labels(), store.digests()),
        "splits": _hash(*(str(split).encode() for split in store.gallery.splits)),
        "items": _hash(np.array(store.items())),
        "payload": _hash(repr(payload).encode("utf-8", "surrogateescape")),
        "descriptors": _hash(store.descriptors()),
        "schema": _hash(repr(store.schema).encode(), repr(store.preprocessing).encode()),
        "root": _hash(str(store.root).encode()),
    }
    model = load_checkpoint(store.model_folder).model
    with torch.no_grad():
        out["model"] = _hash(*(t.numpy() for t in model.state_dict().values()))
    some = store.descriptors()[:5].astype(np.float32) - 100
    for exact in (False, True):
        out[f"hits, exact {exact}"] = _hash(*open_search(store).search(some, 5, exact=exact))
    return out


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()
