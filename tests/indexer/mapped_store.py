"""A store of random maps in several shards, in memory: what the head reads of an index."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from indexer.manifest import FileEntry, Identity, Manifest, ShardEntry
from indexer.path_list import PathList
from indexer.quantise import quantise
from indexer.shard import ShardRows, StoredMaps
from indexer.store import Store


def mapped_store(model, sizes, seed=0):
    """Shards of `sizes` rows; some cells, and all cells of one row, are zero in I and P."""
    torch.manual_seed(seed)
    shards, entries = [], []
    for number, rows in enumerate(sizes):
        # Images are alike and cells differ in loudness, as in real maps.
        maps = torch.randn(1, model.dim, *model.grid) + 0.5 * torch.randn(
            rows, model.dim, *model.grid
        )
        maps *= torch.rand(rows, 1, *model.grid) * 3
        maps[rows // 2] = 0
        maps[0, :, 0, 1] = 0
        keys = model.keys(maps)
        keys[0, :, 1, 1] = 0
        stored = StoredMaps(quantise(maps), quantise(keys))
        shards.append(
            SimpleNamespace(
                stored=stored,
                rows=ShardRows(
                    stored.maps,
                    stored.keys,
                    *(np.zeros((rows, 1), np.float16), np.zeros((rows, 32), np.uint8)),
                    np.arange(rows, dtype=np.int32),
                    PathList(np.zeros(0, np.uint8), np.zeros(rows + 1, np.int64)),
                ),
            )
        )
        entries.append(
            ShardEntry(FileEntry(f"shards/{number}.h5", "", 0), rows, rows, "", "", "", ())
        )
    identity = Identity("model", "preprocessing", "schema", model.dim, model.grid)
    manifest = Manifest(identity, "random", "/", {}, {}, tuple(entries))
    return Store(Path("/nowhere"), manifest, None, shards, verify=False)
