"""What was read of mapped shards leaves the process' memory again, by the kernel's own count."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import SCHEMA, gallery, tiny_checkpoint, write_images
from tiny_gallery import build as build_tiny

from indexer.carried_views import Earlier, carry_views
from indexer.progress import Silent
from indexer.store import open_store
from indexer.views import named, write_views

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def resident(folder: Path) -> dict[str, int]:
    """kB in memory of each mapped shard of an index, by file name."""
    text = Path("/proc/self/smaps").read_text()
    found = re.findall(r"^\S+ \S+ \S+ \S+ \S+ +(\S+)\n(?:.*\n)*?Rss: +(\d+) kB", text, re.M)
    shards = str(folder / "shards")
    return {Path(name).name: int(size) for name, size in found if name.startswith(shards)}


def test_views_are_written_without_keeping_the_maps_in_memory(tmp_path: Path) -> None:
    dataset = gallery(tmp_path / "data", write_images(tmp_path / "data", 20))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    build_tiny(dataset, checkpoint, tmp_path / "out")
    store = open_store(tmp_path / "out")
    maps, keys = store.quantised(slice(0, 20))
    assert len(resident(store.folder)) == 3  # 8, 8 and 4 rows
    assert min(resident(store.folder).values()) > 0
    store.let_go(0, 15)  # ends within the second
    assert sorted(size > 0 for size in resident(store.folder).values()) == [False, True, True]
    write_views(store, checkpoint.model, [named(SCHEMA, SCHEMA.value_condition([0]))])
    assert set(resident(store.folder).values()) == {0}
    store.quantised(slice(0, 20))
    unknown = Earlier(store.folder, 20, store.dim, np.full(20, -1))  # all rows are new
    carry_views(store, checkpoint.model, store.manifest.views, unknown, "cpu", Silent())
    assert set(resident(store.folder).values()) == {0}
    again = store.quantised(slice(0, 20))
    for before, after in zip((maps, keys), again, strict=True):
        np.testing.assert_array_equal(before.values, after.values)
        np.testing.assert_array_equal(before.scales, after.scales)
