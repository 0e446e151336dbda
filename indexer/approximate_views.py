"""Approximate indexes beside the flat files of an index: what is missing is made, the rest kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexer.approximate import build, tune, write_index
from indexer.atomic import temporary_file
from indexer.flat_file import map_flat
from indexer.index_choice import IndexChoice
from indexer.manifest import ApproximateEntry, ViewEntry
from indexer.progress import Progress
from indexer.store_file import commit_file, is_intact, open_file


def add_approximate(
    folder: Path,
    views: Sequence[ViewEntry],
    rows: int,
    dim: int,
    choice: IndexChoice,
    target: float,
    asked: bool,
    progress: Progress,
) -> list[ViewEntry]:
    """Give every view the approximate index that was chosen, or none.

    Args:
        folder: the index.
        views: with flat files that are intact.
        rows: M.
        dim: d.
        choice: what to search with; the files are for a CPU, a GPU reads the flat ones.
        target: recall@10 to reach.
        asked: the user named the factory: it is kept even if it misses the target. Otherwise a
            view whose index misses it is searched whole.
        progress: told of every view whose index misses the target.

    Raises:
        UsageError: the factory cannot be trained on so few rows.
        ResourceError: disk full, or not writable.
    """
    if choice.flat:
        return [replace(view, approximate=None) for view in views]
    out = []
    progress.start(f"{choice.factory} of {len(views)} views", rows * len(views))
    for view in views:
        entry = view.approximate
        if (
            entry is None
            or (entry.factory, entry.target) != (choice.factory, target)
            or not is_intact(folder, entry.file)
        ):
            entry = _make(folder, view, rows, dim, choice, target, asked, progress)
        progress.advance(rows)
        out.append(replace(view, approximate=entry))
    return out


def _make(
    folder: Path,
    view: ViewEntry,
    rows: int,
    dim: int,
    choice: IndexChoice,
    target: float,
    asked: bool,
    progress: Progress,
) -> ApproximateEntry | None:
    started = time.monotonic()
    with open_file(folder, view.file) as handle:
        vectors = map_flat(handle, rows, dim)
    index = build(vectors, choice.factory)
    tuning = tune(index, vectors, choice, target)
    if not tuning.reached:
        then = "kept, as asked for" if asked else "it is searched whole"
        progress.say(
            f"{choice.factory} reaches recall@10 {tuning.recall:.3f} of {target} on the view "
            f"{view.name!r}: {then}"
        )
        if not asked:
            return None
    with temporary_file(folder / "views") as path:
        write_index(index, path)
        file = commit_file(path, folder, f"views/{view.key}", ".ann.faiss")
    seconds = round(time.monotonic() - started, 3)
    return ApproximateEntry(
        file, choice.factory, tuning.refine, tuning.nprobe, round(tuning.recall, 4), target, seconds
    )
