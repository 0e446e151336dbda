"""Views of a changed gallery: vectors of images that stayed are copied, the others computed.

A vector depends on nothing but the image's stored maps, so what stayed keeps its vector.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.approximate import build, read_index, tune, write_index
from indexer.atomic import temporary_file
from indexer.flat_file import FlatFileWriter, map_flat
from indexer.head import embed_arrays
from indexer.index_choice import IndexChoice
from indexer.manifest import ApproximateEntry, ViewEntry
from indexer.progress import Progress
from indexer.store import Store
from indexer.store_file import commit_file, is_intact, open_file
from indexer.views import FILES_A_PASS
from training.errors import UsageError
from training.models.embedder import Embedder

_CHUNK = 8192  # rows times views at a time: 16 MB of 512 floats
_FEWEST = 128  # rows at a time


@dataclass(frozen=True)
class Earlier:
    """An earlier version of a gallery.

    Args:
        folder: the index.
        rows: images in it.
        dim: d.
        origin: where each row of the new version was in it, [M] int64; -1: nowhere.
    """

    folder: Path
    rows: int
    dim: int
    origin: NDArray[np.int64]

    @property
    def extended(self) -> bool:
        """Whether all that changed is that rows were added at the end."""
        return len(self.origin) >= self.rows and bool(
            (self.origin[: self.rows] == np.arange(self.rows)).all()
        )

    def vectors(self, view: ViewEntry) -> NDArray[np.float32]:
        """The view's vectors [rows, dim], mapped."""
        with open_file(self.folder, view.file) as handle:
            return map_flat(handle, self.rows, self.dim)


def carry_views(
    store: Store,
    model: Embedder | None,
    views: Sequence[ViewEntry],
    earlier: Earlier,
    device: str,
    progress: Progress,
) -> list[ViewEntry]:
    """Write views of the new version from those of an earlier one; without approximate indexes.

    Args:
        store: the new version.
        model: its model, on `device`; None if no row is new.
        views: of the earlier version; damaged ones are left out.
        earlier: that version.
        device: where the model is.
        progress: a listener.

    Raises:
        ResourceError: if they do not fit on the disk.
    """
    views = [view for view in views if is_intact(store.folder, view.file)]
    out: list[ViewEntry] = []
    for first in range(0, len(views), FILES_A_PASS):
        batch = views[first : first + FILES_A_PASS]
        progress.start(f"{len(batch)} views", len(store))
        out += _carry_pass(store, model, batch, earlier, device, progress)
    return out


def _carry_pass(
    store: Store,
    model: Embedder | None,
    views: Sequence[ViewEntry],
    earlier: Earlier,
    device: str,
    progress: Progress,
) -> list[ViewEntry]:
    started = time.monotonic()
    conditions = [view.condition(store.schema.size) for view in views]
    vectors = [earlier.vectors(view) for view in views]
    with ExitStack() as stack:
        paths = [stack.enter_context(temporary_file(store.folder / "views")) for _ in views]
        with ExitStack() as open_files:
            writers = [
                open_files.enter_context(FlatFileWriter(path, len(store), store.dim))
                for path in paths
            ]
            step = max(_FEWEST, _CHUNK // len(views))
            for start in range(0, len(store), step):
                origin = earlier.origin[start : start + step]
                old, new = np.flatnonzero(origin >= 0), np.flatnonzero(origin < 0)
                computed = [np.empty((0, store.dim), np.float32) for _ in views]
                if len(new):
                    assert model is not None, "new rows are embedded by the model"
                    computed = embed_arrays(store, model, conditions, start + new, device=device)
                for writer, before, own in zip(writers, vectors, computed, strict=True):
                    block = np.empty((len(origin), store.dim), dtype=np.float32)
                    block[old], block[new] = before[origin[old]], own
                    writer.append(block)
                store.let_go(start, start + len(origin))
                progress.advance(len(origin))
        seconds = round((time.monotonic() - started) / len(views), 3)
        return [
            replace(
                view,
                content=store.manifest.content,
                file=commit_file(path, store.folder, f"views/{view.key}", ".faiss"),
                seconds=view.seconds or seconds,  # what computing all of it takes, if known
                approximate=None,
            )
            for view, path in zip(views, paths, strict=True)
        ]


def carry_approximate(
    folder: Path, old: ViewEntry, new: ViewEntry, earlier: Earlier, progress: Progress
) -> ViewEntry:
    """The new version of a view with an approximate index made as the old one's was.

    Rows that came at the end are added to it; after any other change it is made anew. A view whose
    index then misses its recall target is searched whole, unless it did before, as asked for.

    Args:
        folder: the index.
        old: the view in the earlier version.
        new: the view in the new one, with its flat file.
        earlier: the earlier version.
        progress: is told if a target is missed.

    Raises:
        ResourceError: if it does not fit on the disk.
    """
    entry = old.approximate
    if entry is None:
        return new
    started = time.monotonic()
    rows = len(earlier.origin)
    with open_file(folder, new.file) as handle:
        vectors = map_flat(handle, rows, earlier.dim)
    choice = IndexChoice(entry.factory, entry.refine, entry.nprobe, False, False, "as before")
    try:
        if earlier.extended and is_intact(folder, entry.file):
            index = _read(folder, entry, earlier)
            for start in range(earlier.rows, rows, _CHUNK):
                index.add(np.array(vectors[start : start + _CHUNK]))
        else:
            index = build(vectors, entry.factory)
    except UsageError as error:  # too few rows are left to train it on
        progress.say(f"{error}; the view {new.name!r} is searched whole")
        return new
    tuning = tune(index, vectors, choice, entry.target)
    if not tuning.reached and entry.recall >= entry.target:
        progress.say(
            f"{entry.factory} reaches recall@10 {tuning.recall:.3f} of {entry.target} on the view "
            f"{new.name!r}: it is searched whole"
        )
        return new
    with temporary_file(folder / "views") as path:
        write_index(index, path)
        file = commit_file(path, folder, f"views/{new.key}", ".ann.faiss")
    approximate = replace(
        entry,
        file=file,
        refine=tuning.refine,
        nprobe=tuning.nprobe,
        recall=round(tuning.recall, 4),
        seconds=round(time.monotonic() - started, 3),
    )
    return replace(new, approximate=approximate)


def _read(folder: Path, entry: ApproximateEntry, earlier: Earlier) -> Any:
    with open_file(folder, entry.file) as handle:
        content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    return read_index(content, folder / entry.file.name, earlier.rows, earlier.dim)
