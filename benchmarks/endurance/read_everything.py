"""What an index says, as one hash a part: two indexes that say the same have the same hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from indexer.view import open_view
from indexer.warm_views import WarmViews
from retrieval.calibration import RECALL, load_calibration

from indexer.store import open_store
from training.checkpoint import load_checkpoint


def read_everything(folder: Path) -> dict[str, str | None]:
    """Read every file of an index the way queries do.

    Returns:
        Hash of each part. `warm` and `calibration` are None where there is none that can be used:
        they are computed anew then.

    Raises:
        RetrieveError: as the parts' readers.
    """
    store = open_store(folder)
    maps, keys = store.quantised(slice(None))
    out: dict[str, str | None] = {
        "paths": _hash(*(path.encode("utf-8", "surrogateescape") for path in store.paths)),
        "gallery": _hash(store.rows, store.labels(), store.predicted(), store.gallery.digests),
        "splits": _hash(*(str(split).encode() for split in store.gallery.splits)),
        "maps": _hash(maps.values, maps.scales, keys.values, keys.scales),
        "schema": _hash(repr(store.schema).encode(), repr(store.preprocessing).encode()),
        "root": _hash(str(store.root).encode()),
    }
    model = load_checkpoint(store.model_folder).model
    with torch.no_grad():
        out["model"] = _hash(*(t.numpy() for t in model.state_dict().values()))
    for entry in store.manifest.views:
        view = open_view(store, entry.key)
        assert view is not None, "a view that the manifest names is there"
        out[f"view {entry.name}"] = _hash(np.array(view.vectors))
        cosines, rows = view.source.candidates(np.array(view.vectors[:2]), min(5, len(store)))
        out[f"candidates {entry.name}"] = _hash(cosines, rows)
    warm = WarmViews(folder, store.manifest.content)
    found = [warm.load(entry.key) for entry in warm.list()]
    out["warm"] = (
        _hash(*(np.array(v.vectors) for v in found if v is not None)) if any(found) else None
    )
    calibration = load_calibration(folder, store.manifest.content, RECALL)
    out["calibration"] = None if calibration is None else _hash(repr(calibration).encode())
    return out


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()
