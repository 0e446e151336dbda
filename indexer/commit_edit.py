"""Committing a changed list of images as the next version of an index.

Shards that hold the same images stay as they are; the others are written anew, with the descriptors
of images that stayed copied. The gallery file and the search follow, and one manifest names them
all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from indexer.build_search import carry_lists
from indexer.calibration_images import calibration_images
from indexer.choose_forward import choose_forward
from indexer.committed import commit_manifest
from indexer.encode import Forward
from indexer.encode_shards import encode_shards
from indexer.encoded_images import EncodedImages
from indexer.gallery import Known, open_gallery, write_gallery
from indexer.manifest import (
    BUILDING_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    read_manifest,
)
from indexer.plan import ShardPlan
from indexer.progress import Progress
from indexer.shard import open_shards
from indexer.shard_work import ShardWork
from indexer.store import Store
from indexer.store_file import check_content, open_file
from indexer.sweep import sweep
from training.errors import CorruptStoreError, DataError
from training.image_file import NO_VERSION
from training.models.conditioned import ConditionedEmbedder, Described

_BATCH = 32  # images; larger ones are no faster on a CPU


@dataclass
class Part:
    """A shard of the new version.

    Args:
        entry: the shard that it was; None if it is new.
        sources: what it holds now: rows of the old version, or `len(store)` and on for new images.
    """

    entry: ShardEntry | None
    sources: list[int]

    def same(self, start: int) -> bool:
        """Whether it holds just what it held, rows `start` and on."""
        if self.entry is None:
            return False
        return self.sources == list(range(start, start + self.entry.rows))


@dataclass(frozen=True)
class Edit:
    """A changed list of images.

    Args:
        parts: the shards, in row order.
        new: paths of the new images.
        replaces: the row of the old version whose place each of them takes; -1: none.
        labels: label states [M_old + number of new, K] int8, as `Part.sources` numbers them.
    """

    parts: list[Part]
    new: list[str]
    replaces: list[int]
    labels: NDArray[np.int8]


def commit_edit(
    store: Store, model: ConditionedEmbedder | None, edit: Edit, device: str, progress: Progress
) -> int:
    """Write the next version of an index; for the holder of its lock.

    Args:
        store: the present version.
        model: its model on `device`; may be left out if there is no new image.
        edit: the changed list.
        device: where the model is.
        progress: a listener.

    Returns:
        Images in it.

    Raises:
        CorruptStoreError: a file that is needed is damaged.
        DataError: a new image can no longer be read.
        ResourceError: disk, memory or permission.
    """
    folder, manifest = store.folder, store.manifest
    parts = [part for part in edit.parts if part.sources or _has_rejects(part)]
    shards = _write_shards(store, model, edit, parts, device, progress)
    manifest = replace(manifest, shards=tuple(shards))
    files = open_shards(folder, shards, verify=False)
    sources = [np.array(part.sources, dtype=np.int64) for part in parts if part.sources]
    listed = []
    for file, own in zip(files, sources, strict=True):
        places = np.zeros(int(file.rows.listed.max()) + 1, np.int64)
        places[file.rows.listed] = own
        listed.append(places)
    before = np.array(edit.replaces, dtype=np.int64)
    fresh = before < 0
    # A new image counts as if it stood at the end of the dataset.
    beyond = int(store.rows.max(initial=-1)) + np.cumsum(fresh)
    numbers = np.concatenate([store.rows, np.where(fresh, beyond, store.rows[before])])
    old = store.gallery
    items = old.items
    if items is not None:
        items = np.concatenate([items, np.where(fresh, -1, items[before])])
    payload = {
        name: [*column.cells, *(column.text(row) if row >= 0 else "" for row in edit.replaces)]
        for name, column in old.payload.items()
    }
    splits = np.concatenate([old.splits, np.where(fresh, "", old.splits[before])])
    known = Known(edit.labels, splits, numbers, items, payload)
    gallery = write_gallery(folder, files, listed, known)
    manifest = replace(manifest, gallery=gallery)
    if manifest.content != store.manifest.content:
        new = Store(folder, manifest, open_gallery(folder, gallery, False), files, False)
        flat = np.concatenate(sources)
        origin = np.where(flat < len(store), flat, -1)
        search = carry_lists(folder, new, store.manifest.search, origin)
        manifest = replace(manifest, search=search)
    commit_manifest(folder, manifest)
    sweep(folder, manifest, _halted(store))
    return manifest.rows


def _has_rejects(part: Part) -> bool:
    return part.entry is not None and bool(part.entry.rejects)


def _write_shards(
    store: Store,
    model: ConditionedEmbedder | None,
    edit: Edit,
    parts: list[Part],
    device: str,
    progress: Progress,
) -> list[ShardEntry]:
    """The shards of the new version; those that are not there yet are written."""
    starts = dict(zip(map(id, edit.parts), _starts(edit.parts), strict=True))
    changed = [n for n, part in enumerate(parts) if not part.same(starts[id(part)])]
    files: list[FileEntry] = []
    offsets: list[tuple[int, int, int]] = []  # first row, rows, number among the copied images
    total = 0
    for part in (parts[n] for n in changed):
        if part.entry is not None and part.entry.file is not None:
            with open_file(store.folder, part.entry.file) as handle:
                check_content(store.folder, part.entry.file, handle)
            files.append(part.entry.file)
            offsets.append((starts[id(part)], part.entry.rows, total))
            total += part.entry.rows
    encoded = EncodedImages(store.folder, files)
    known = np.full(len(store), -1, dtype=np.int64)
    for start, rows, offset in offsets:
        known[start : start + rows] = np.arange(offset, offset + rows)
    work = []
    for number in changed:
        own = np.array(parts[number].sources, dtype=np.int64)
        paths = [_path(store, edit, source) for source in parts[number].sources]
        images = np.where(own < len(store), known[np.minimum(own, len(store) - 1)], -1)
        plan = ShardPlan(number, own, paths)
        work.append(ShardWork(plan, images, [NO_VERSION] * len(paths)))
    written: dict[int, ShardEntry] = {}

    def committed(plan: ShardPlan, entry: ShardEntry) -> None:
        if entry.rejects:
            first = entry.rejects[0]
            raise DataError(f"{first.path}: {first.reason}; nothing was changed")
        written[plan.number] = entry

    missing = sum(len(shard.missing) for shard in work)
    progress.start("images", missing)
    encode_shards(
        store.folder,
        store.root,
        work,
        encoded,
        store.layout,
        _forward(store, model, missing),
        store.preprocessing,
        device,
        _BATCH,
        0,
        progress,
        committed,
    )
    shards = []
    for number, part in enumerate(parts):
        if number not in written:
            assert part.entry is not None, "a new shard is written"
            shards.append(part.entry)
            continue
        left = part.entry.rejects if part.entry else ()
        rejects = tuple(reject for reject in left if reject.path not in edit.new)
        shards.append(replace(written[number], rejects=rejects))
    return shards


def _starts(parts: list[Part]) -> list[int]:
    """First row of each part in the old version."""
    starts, start = [], 0
    for part in parts:
        starts.append(start)
        start += part.entry.rows if part.entry else 0
    return starts


def _path(store: Store, edit: Edit, source: int) -> str:
    return store.paths[source] if source < len(store) else edit.new[source - len(store)]


def _forward(store: Store, model: ConditionedEmbedder | None, count: int) -> Forward:
    if model is None or not count:
        return _nothing_to_encode
    precision = store.manifest.identity.precision
    return choose_forward(
        model,
        store.preprocessing.size,
        "onnx-int8" if precision == "int8" else "torch",
        precision,
        lambda: calibration_images(store.root, store.paths, store.preprocessing),
        store.manifest.int8_ranges,
    ).forward


def _nothing_to_encode(images: Tensor) -> Described:
    raise AssertionError("only what was announced is encoded")


def _halted(store: Store) -> Manifest | None:
    """What an interrupted build has committed so far: it must not be swept away."""
    try:
        return read_manifest(store.folder / BUILDING_NAME)
    except (CorruptStoreError, DataError):
        return None
