"""Adding single images to an index and taking some out, without building it again.

New images go to the end. They join the last shard, which is written anew, until it has as many
rows as a build gives a shard: small shards never pile up.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.commit_edit import Edit, Part, commit_edit
from indexer.lock import writer_lock
from indexer.progress import Progress, Silent
from indexer.shard import rows_a_shard
from indexer.store import Store, open_store
from training.checkpoint import load_checkpoint
from training.decoding import read_image
from training.errors import DataError, UsageError
from training.files import as_resource_error, remove_temporaries
from training.image_file import shown_path
from training.schema import Condition


@dataclass(frozen=True)
class EditReport:
    """What an edit did, in numbers of images.

    Args:
        added: that were not there before.
        changed: that were there with other content or labels.
        unchanged: that were there already, just so.
        removed: that are gone.
        images: in the index now.
    """

    added: int
    changed: int
    unchanged: int
    removed: int
    images: int


def add_images(
    folder: Path,
    paths: Sequence[str],
    labels: Condition | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> EditReport:
    """Encode images with the index's own model and put them at its end, in one commit.

    A path that is there already keeps its row: the image is encoded anew if its content differs.
    The index then equals one that was built from the longer list.

    Args:
        folder: the index.
        paths: relative to the index's root.
        labels: label states of all of them [K] int8. Attributes of which all states are 0 stay
            unknown, or as they were; None: all of them.
        device: `cpu`, `cuda` or `cuda:N`.
        progress: a listener.

    Raises:
        DataError: there is no index, or an image cannot be read; nothing is changed then.
        CorruptStoreError: a file that is needed is damaged.
        LockedError: another process writes to the index.
        ResourceError: disk, memory or permission.
    """
    progress = progress or Silent()
    with writer_lock(folder):
        store = _open(folder)
        digests = _read(store, paths)
        there = _rows_of(store, set(digests))
        parts = _parts(store)
        table = store.labels()
        known = np.zeros(store.schema.size, np.int8) if labels is None else labels
        belongs = store.schema.attribute_of
        stated = np.isin(belongs, belongs[known != 0])
        new: list[str] = []
        replaced: dict[int, int] = {}  # row -> number of the new image that takes its place
        added = changed = 0
        for path, digest in digests.items():
            rows = there.get(path, [])
            stale = [row for row in rows if store.digests()[row].tobytes() != digest]
            now = np.where(stated, known, table[rows])
            relabelled = bool((table[rows] != now).any())
            if relabelled:
                table = np.array(table)
                table[rows] = now
            replaced |= {row: len(new) + place for place, row in enumerate(stale)}
            new += [path] * (len(stale) if rows else 1)
            added, changed = added + (not rows), changed + bool(stale or relabelled)
        unchanged = len(digests) - added - changed
        if not added + changed:
            return EditReport(0, 0, unchanged, 0, len(store))
        old = len(store)
        for part in parts:
            part.sources = [old + replaced[s] if s in replaced else s for s in part.sources]
        taken = set(replaced.values())
        fresh = [old + number for number in range(len(new)) if number not in taken]
        _append(parts, fresh, rows_a_shard(old + len(fresh)))
        places = {number: row for row, number in replaced.items()}
        replaces = [places.get(number, -1) for number in range(len(new))]
        of_new = [known if row < 0 else table[row] for row in replaces]
        edit = Edit(parts, new, replaces, np.vstack([table, *of_new]))
        model = load_checkpoint(store.model_folder, device).model if new else None
        images = commit_edit(store, model, edit, device, progress)
    return EditReport(added, changed, unchanged, 0, images)


def remove_images(
    folder: Path, paths: Sequence[str], progress: Progress | None = None
) -> EditReport:
    """Take images out of an index, in one commit; the rows behind them move up.

    Args:
        folder: the index.
        paths: relative to the index's root; all rows of a path go.
        progress: a listener.

    Raises:
        DataError: there is no index, or no such image in it; nothing is changed then.
        UsageError: no image would be left.
        CorruptStoreError, LockedError, ResourceError: as `add_images`.
    """
    progress = progress or Silent()
    with writer_lock(folder):
        store = _open(folder)
        there = _rows_of(store, set(paths))
        for path in paths:
            if path not in there:
                raise DataError(_unknown(store, path))
        gone = {row for rows in there.values() for row in rows}
        if len(gone) == len(store):
            raise UsageError(
                "no image would be left, and an index has at least one; delete the folder "
                f"{folder} instead"
            )
        parts = _parts(store)
        for part in parts:
            part.sources = [source for source in part.sources if source not in gone]
        edit = Edit(parts, [], [], store.labels())
        images = commit_edit(store, None, edit, "cpu", progress)
    return EditReport(0, 0, 0, len(gone), images)


def _open(folder: Path) -> Store:
    """Open the index for its writer; DataError if there is none."""
    store = open_store(folder)
    with as_resource_error(folder):
        remove_temporaries(folder)
    return store


def _read(store: Store, paths: Sequence[str]) -> dict[str, bytes]:
    """SHA-256 of each image, each path once; raises DataError if one cannot be read."""
    digests = {}
    for path in dict.fromkeys(paths):
        image = read_image(store.root, path, store.preprocessing)
        if image.reason:
            raise DataError(f"{shown_path(store.root / path)}: {image.reason}; nothing was added")
        digests[path] = image.digest
    return digests


def _rows_of(store: Store, paths: set[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, path in enumerate(store.paths):
        if path in paths:
            found.setdefault(path, []).append(row)
    return found


def _parts(store: Store) -> list[Part]:
    parts, start = [], 0
    for entry in store.manifest.shards:
        parts.append(Part(entry, list(range(start, start + entry.rows))))
        start += entry.rows
    return parts


def _append(parts: list[Part], sources: list[int], most: int) -> None:
    """Fill the last shard to `most` images, then new ones."""
    if parts and len(parts[-1].sources) < most:
        room = most - len(parts[-1].sources)
        parts[-1].sources += sources[:room]
        sources = sources[room:]
    for start in range(0, len(sources), most):
        parts.append(Part(None, sources[start : start + most]))


def _unknown(store: Store, path: str) -> str:
    near = difflib.get_close_matches(path, list(store.paths), n=3, cutoff=0.5)
    shown = ", ".join(shown_path(Path(name)) for name in near) or "none is like it"
    return f"{shown_path(Path(path))} is not in the index {store.folder}; nearest: {shown}"
