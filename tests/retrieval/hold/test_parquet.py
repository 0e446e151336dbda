"""An index as a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
from small_index import Shop, run

from indexer.store.store import open_store


def test_a_row_an_image(shop: Shop, tmp_path: Path, capsys) -> None:
    out = tmp_path / "shop.parquet"
    code, said, _ = run(capsys, "export", shop.index, "--to", out)
    assert (code, said.strip()) == (0, "68 images: 68 written, 0 removed")
    store, frame = open_store(shop.index), polars.read_parquet(out)
    schema, labels, items = store.schema, store.labels(), store.items()
    assert len(frame) == len(store)
    for row, told in enumerate(frame.iter_rows(named=True)):
        names = [schema.value_names[flat] for flat in np.flatnonzero(labels[row] == 1)]
        absent = [schema.value_names[flat] for flat in np.flatnonzero(labels[row] == -1)]
        assert (told["row"], told["path"]) == (row, store.paths[row])
        assert (told["labels"], told["absent"]) == (names, absent)
        assert told["item"] == (int(items[row]) if items[row] >= 0 else None)
        assert told["digest"] == store.digests()[row].tobytes()
        assert told["descriptor"] == store.descriptors()[row].tobytes()
        cells = {name: told[f"c_{name}"] for name in store.payload if told[f"c_{name}"]}
        assert cells == store.payload_of(row)
    codes = store.descriptors()
    assert np.array_equal(frame["chances"].to_numpy(), store.layout.chances(codes))
    assert np.array_equal(frame["nuance"].to_numpy(), store.layout.nuance_of(codes))
    about = json.loads(polars.read_parquet_metadata(out)["retrieve"])
    assert about["schema"] == store.manifest.schema
    assert about["root"] == store.manifest.root
