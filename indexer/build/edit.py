"""Adding single images to an index and taking some out, without building it again.

New images go to the end. They join the last shard, which is written anew, until it has as many
rows as a build gives a shard: small shards never pile up. Shards that hold the same images stay as
they are; descriptors of images that stayed are copied.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.build.shards import EncodedImages, ShardPlan, ShardWork, Work, listed_plans
from indexer.build.version import Means, means_of, write_shards, write_version
from indexer.progress import Progress, Silent
from indexer.search.choose import carry_lists
from indexer.store.gallery import Known
from indexer.store.manifest import SearchEntry, sweep, writer_lock
from indexer.store.shard import rows_a_shard
from indexer.store.store import Store, open_store
from training.errors import DataError, UsageError
from training.images.batches import read_image
from training.images.read import NO_VERSION, shown_path
from training.schema import Condition


@dataclass(frozen=True)
class EditReport:
    """Numbers of images: `changed` were there with other content or labels, `unchanged` just so;
    `images` are in the index now."""

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

    Paths are relative to the index's root. `labels` are the label states of all of them [K] int8:
    attributes of which all states are 0 (None: all of them) stay unknown, or as they were. Raises
    DataError if there is no index or an image cannot be read, and nothing is changed then; and
    CorruptStoreError, LockedError, ResourceError as `build_index`.
    """
    with writer_lock(folder):
        store = open_store(folder)
        digests = _read(store, paths)
        there = _rows_of(store, set(digests))
        table = np.array(store.labels())
        known = np.zeros(store.schema.size, np.int8) if labels is None else labels
        belongs = store.schema.attribute_of
        stated = np.isin(belongs, belongs[known != 0])
        new: list[str] = []
        replaced: dict[int, int] = {}  # row -> number of the new image that takes its place
        added = changed = 0
        for path, digest in digests.items():
            rows = np.array(there.get(path, []), dtype=np.int64)
            same = (store.digests_of(rows) == np.frombuffer(digest, np.uint8)).all(axis=1)
            stale = rows[~same].tolist()
            now = np.where(stated, known, table[rows])
            relabelled = bool((table[rows] != now).any())
            table[rows] = now
            replaced |= {row: len(new) + place for place, row in enumerate(stale)}
            new += [path] * (len(stale) if len(rows) else 1)
            added, changed = added + (not len(rows)), changed + bool(stale or relabelled)
        if added + changed:
            old = len(store)
            before = np.full(len(new), -1, dtype=np.int64)
            before[list(replaced.values())] = list(replaced)
            now = np.append(np.arange(old), -1)  # of a reject, whose row is -1
            now[list(replaced)] = old + np.array(list(replaced.values()), dtype=np.int64)
            plans = []
            for plan in listed_plans(store.manifest.shards, store.paths):
                again = [r < 0 and p in digests for r, p in zip(plan.rows, plan.paths, strict=True)]
                plans.append(_without(replace(plan, rows=now[plan.rows]), np.array(again)))
            _append(plans, old + np.flatnonzero(before < 0), new, old)
            of_new = np.where((before < 0)[:, None], known, table[before])
            means = means_of(store.manifest, store.model_folder, device, progress or Silent())
            _commit(store, plans, _known(store, before, np.vstack([table, of_new])), means)
        unchanged = len(digests) - added - changed
        return EditReport(added, changed, unchanged, 0, len(store) + len(new) - len(replaced))


def remove_images(
    folder: Path, paths: Sequence[str], progress: Progress | None = None
) -> EditReport:
    """Take images, all rows of each path, out of an index, in one commit; rows behind move up.

    Raises DataError if there is no index, or no such image in it, UsageError if no image would be
    left, and nothing is changed then; others as `add_images`.
    """
    with writer_lock(folder):
        store = open_store(folder)
        there = _rows_of(store, set(paths))
        for path in paths:
            if path not in there:
                near = difflib.get_close_matches(path, list(store.paths), n=3, cutoff=0.5)
                shown = ", ".join(shown_path(Path(name)) for name in near) or "none is like it"
                what = f"{shown_path(Path(path))} is not in the index {folder}"
                raise DataError(f"{what}; nearest: {shown}")
        gone = {row for rows in there.values() for row in rows}
        if len(gone) == len(store):
            raise UsageError(
                "no image would be left, and an index has at least one; delete the folder "
                f"{folder} instead"
            )
        plans = listed_plans(store.manifest.shards, store.paths)
        plans = [_without(plan, np.isin(plan.rows, list(gone))) for plan in plans]
        means = means_of(store.manifest, store.model_folder, "cpu", progress or Silent())
        _commit(store, plans, Known.again(store.gallery), means)
        return EditReport(0, 0, 0, len(gone), len(store) - len(gone))


def _without(plan: ShardPlan, gone: NDArray[np.bool_]) -> ShardPlan:
    paths = [path for path, out in zip(plan.paths, gone.tolist(), strict=True) if not out]
    return ShardPlan(plan.number, plan.rows[~gone], paths)


def _commit(store: Store, plans: list[ShardPlan], known: Known, means: Means) -> None:
    """Write a changed list of images as the next version; for the holder of the lock.

    Images stay in their shards; rows are those of the old version, and beyond them new images.
    """
    folder, old, before = store.folder, len(store), store.manifest
    listed = {plan.number: plan for plan in listed_plans(before.shards, store.paths)}
    plans = [plan for plan in plans if plan.paths]

    def stays(plan: ShardPlan) -> bool:
        was = listed.get(plan.number)
        return was is not None and plan.paths == was.paths and np.array_equal(plan.rows, was.rows)

    done = {plan.number: before.shards[plan.number] for plan in plans if stays(plan)}
    todo = [plan for plan in plans if plan.number not in done]
    files = [before.shards[plan.number].file for plan in todo if plan.number in listed]
    encoded = EncodedImages(folder, [file for file in files if file])
    reasons = {reject.path: reject.reason for reject in before.rejects}
    work = []
    for plan in todo:
        copied = (plan.rows >= 0) & (plan.rows < old)
        images = np.full(len(plan.rows), -1, dtype=np.int64)
        images[copied] = encoded.find(store.digests_of(plan.rows[copied]))
        rejects = {n: reasons[plan.paths[n]] for n in np.flatnonzero(plan.rows < 0).tolist()}
        work.append(ShardWork(plan, images, [NO_VERSION] * len(plan.rows), rejects))
    paths = [path for plan in plans for path in plan.paths]
    manifest = write_shards(folder, before, Work(paths, done, work, encoded), means)
    for reject in manifest.rejects:
        if reject.path not in reasons:
            raise DataError(f"{reject.path}: {reject.reason}; nothing was changed")
    flat = np.concatenate([plan.rows[plan.rows >= 0] for plan in plans])
    origin = np.where(flat < old, flat, -1)

    def search_of(new: Store) -> SearchEntry:
        same = new.manifest.content == before.content
        return before.search if same else carry_lists(new, before.search, origin)

    manifest = write_version(folder, manifest, plans, known, search_of)
    sweep(folder, manifest, halted=True)


def _known(store: Store, before: NDArray[np.int64], labels: NDArray[np.int8]) -> Known:
    """What is known of the old images and of N new ones; `labels` are of all of them.

    `before` [N] int64 are the rows that these replace; -1: none, the image then counts as if it
    stood at the dataset's end.
    """
    fresh, gallery = before < 0, store.gallery

    def extended(old: NDArray[Any], unknown: Any) -> NDArray[Any]:
        return np.concatenate([old, np.where(fresh, unknown, old[before])])

    numbers = extended(store.rows, int(store.rows.max(initial=-1)) + np.cumsum(fresh))
    payload = {
        name: [*column.cells, *(column.text(row) if row >= 0 else "" for row in before.tolist())]
        for name, column in gallery.payload.items()
    }
    items = None if gallery.items is None else extended(gallery.items, -1)
    return Known(labels, extended(gallery.splits, ""), numbers, items, payload)


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


def _append(plans: list[ShardPlan], rows: NDArray[np.int64], new: list[str], old: int) -> None:
    """Fill the last shard to as many images as a build gives one, then new ones."""
    most = rows_a_shard(old + len(rows))
    room = max(0, most - len(plans[-1].paths))
    last, paths = plans.pop(), [new[row - old] for row in rows]
    joined = np.concatenate([last.rows, rows[:room]])
    plans.append(ShardPlan(last.number, joined, last.paths + paths[:room]))
    for start in range(room, len(rows), most):
        own = slice(start, start + most)
        plans.append(ShardPlan(len(plans), rows[own], paths[own]))
