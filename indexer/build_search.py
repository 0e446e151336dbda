"""Making the search of an index: nothing where it is flat, else its file of inverted lists."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.index_choice import choose_factory, lists_of
from indexer.inverted_lists import (
    InvertedLists,
    commit_lists,
    fill_lists,
    nearest_centre,
    open_lists,
    train_cells,
)
from indexer.manifest import SearchEntry
from indexer.measure_recall import QUERIES, Requests, likeness_requests, measure_probes
from indexer.progress import Progress
from indexer.search import in_words
from indexer.store import Store
from indexer.store_file import open_file

_REQUESTS = 4096  # by which cells are made


def build_search(
    store: Store,
    target: float,
    asked: str | None,
    requests: Requests | None,
    progress: Progress,
) -> SearchEntry:
    """Choose how a gallery is searched, and make what that takes; for the holder of the lock.

    Args:
        store: labels and descriptors.
        target: recall@10 that is wanted, above 0 and at most 1.
        asked: `flat` or `IVFn`, if the user named it.
        requests: makes the query vectors with which recall is measured; likeness by default.
        progress: is told what takes long, and what was chosen.

    Raises:
        UsageError: as `choose_factory`.
        ResourceError: disk or memory full.
    """
    rows, width = len(store), store.layout.width
    factory = choose_factory(rows, target, asked)
    entry = SearchEntry(factory, asked is not None, target)
    count = lists_of(factory)
    if not count:
        return entry
    started = time.monotonic()
    progress.say(f"sorting {rows:,} descriptors into {count:,} lists")
    drawn = np.random.default_rng(0).permutation(rows)[: QUERIES + _REQUESTS]
    pictures = store.descriptors_of(drawn)
    weights = (requests or likeness_requests)(store.layout, store.schema, pictures, 0)
    others = weights[QUERIES:] if rows > QUERIES else weights
    into, centres = train_cells(store.blocks(), rows, count, others)
    lists = nearest_centre(store.blocks(), centres, into)
    index = fill_lists(store.blocks(), width, lists, count)
    entry = measure_probes(InvertedLists(index, 1, 1), store, weights[:QUERIES], entry)
    entry = replace(entry, file=commit_lists(store.folder, index))
    progress.say(f"search: {in_words(entry)}, in {time.monotonic() - started:.0f} s")
    return entry


def carry_lists(
    folder: Path, store: Store, entry: SearchEntry, origin: NDArray[np.int64]
) -> SearchEntry:
    """The search of an edited index: kept rows stay in their lists, new ones join the nearest.

    Args:
        folder: the index.
        store: its new version.
        entry: the search of the version before.
        origin: row of each image in the version before [M] int64; -1: it is new.

    Returns:
        The entry with the new file; its recalls are those that were measured in the build.

    Raises:
        CorruptStoreError: the lists are damaged.
        ResourceError: disk or memory full.
    """
    if entry.file is None:
        return entry
    with open_file(folder, entry.file) as handle:
        old = open_lists(folder, entry, handle)
    lists = old.list_of_rows()[np.maximum(origin, 0)]
    new = np.flatnonzero(origin < 0)
    lists[new] = nearest_centre([store.descriptors_of(new)], old.centroids())
    index = fill_lists(store.blocks(), store.layout.width, lists, old.lists)
    return replace(entry, file=commit_lists(folder, index))
