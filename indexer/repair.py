"""Making an index whole again: from its own shards, its images, its dataset and its checkpoint.

Shards are the truth. A damaged one is encoded again from the images, it alone; the gallery file
follows from the shards and the labels, the lists of a search from the shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.align_labels import align_labels
from indexer.build_search import build_search
from indexer.committed import commit_manifest
from indexer.gallery import Gallery, Known, known_of, open_gallery, write_gallery
from indexer.lock import writer_lock
from indexer.manifest import BUILDING_NAME, FileEntry, Manifest
from indexer.measure_recall import Requests
from indexer.model_copy import copy_model
from indexer.progress import Progress
from indexer.repair_shards import encode_again
from indexer.shard import ShardFile, open_shards
from indexer.store import Store
from indexer.sweep import sweep
from indexer.verify import Verification, verify_index
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, UsageError
from training.files import as_resource_error, remove_temporaries
from training.schema import Schema


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    Args:
        before: what was wrong.
        after: what is wrong still; nothing, as a rule.
        why: file -> why it could not be repaired.
    """

    before: Verification
    after: Verification
    why: dict[str, str]


class _CannotRepair(Exception):
    """Why a file stays damaged."""


def repair_index(
    folder: Path,
    load_model: Callable[[Path], Checkpoint],
    find_dataset: Callable[[Manifest], Dataset],
    progress: Progress,
    root: Path | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    requests: Requests | None = None,
) -> Repair:
    """Check an index, restore what is damaged and check it again.

    Args:
        folder: the index.
        load_model: `training.checkpoint.load_checkpoint` for the device.
        find_dataset: the dataset that the index was built from; only asked if the gallery file is
            lost. It raises a RetrieveError if there is none.
        progress: is told what is done.
        root: where the images are now; where they were by default.
        checkpoint: a copy of the model, should the index's own be damaged.
        device: where shards are encoded.
        requests: as for `build_index`.

    Raises:
        DataError, CorruptStoreError: as `verify_index`.
        LockedError: another process writes to the index.
        ResourceError: disk or memory full.
    """
    with writer_lock(folder):
        with as_resource_error(folder):
            remove_temporaries(folder)
        before = verify_index(folder, progress)
        work = _Repairing(
            folder, before, load_model, find_dataset, progress, root, device, requests
        )
        if before.damaged:
            work.run(checkpoint)
        return Repair(before, verify_index(folder, progress), work.why)


class _Repairing:
    """One repair: the manifest as it grows whole, and what could not be done."""

    def __init__(
        self,
        folder: Path,
        before: Verification,
        load_model: Callable[[Path], Checkpoint],
        find_dataset: Callable[[Manifest], Dataset],
        progress: Progress,
        root: Path | None,
        device: str,
        requests: Requests | None,
    ) -> None:
        self.folder, self.damaged, self.progress = folder, dict(before.damaged), progress
        self.old = self.manifest = before.version
        self.root, self.device = root or Path(self.old.root), device
        self.why: dict[str, str] = {}
        self._load_model, self._find_dataset = load_model, find_dataset
        self._requests = requests
        self._model: Checkpoint | None = None

    def run(self, checkpoint: Path | None) -> None:
        """Restore in the order in which files depend on each other, then commit."""
        if checkpoint is not None:
            self._attempt([e.name for e in self.old.model_files], lambda: self._copy(checkpoint))
        for name in [e.name for e in self.old.model_files if e.name in self.damaged]:
            self.why[name] = "give a copy of the model with --checkpoint"
        for number, shard in enumerate(self.old.shards):
            if shard.file is not None and shard.file.name in self.damaged:
                self._attempt([shard.file.name], lambda n=number: self._shard(n))  # type: ignore[misc]
        gallery = self.old.gallery
        assert gallery is not None, "an index that was committed has a gallery file"
        if gallery.name in self.damaged or self.manifest.content != self.old.content:
            self._attempt([gallery.name], self._gallery)
        search = self.old.search.file
        moved = self.manifest.content != self.old.content
        if search is not None and (search.name in self.damaged or moved):
            self._attempt([search.name], self._search)
        if self.manifest.content == self.old.content or not self.why:
            commit_manifest(self.folder, self.manifest)
            with as_resource_error(self.folder):
                if BUILDING_NAME in self.damaged:
                    (self.folder / BUILDING_NAME).unlink(missing_ok=True)
            if not self.why:
                sweep(self.folder, self.manifest)

    def _attempt(self, names: list[str], work: Callable[[], None]) -> None:
        try:
            work()
        except (_CannotRepair, DataError, CorruptStoreError, UsageError) as error:
            for name in names:
                if name in self.damaged:
                    self.why[name] = str(error)
        else:
            for name in names:
                self.damaged.pop(name, None)

    def _copy(self, checkpoint: Path) -> None:
        loaded = self._load_model(checkpoint)  # a run's folder stands for its best epoch
        if loaded.hash != self.old.identity.model:
            raise _CannotRepair(f"{checkpoint} holds another model")
        copy_model(loaded.folder, self.folder)

    def _checkpoint(self) -> Checkpoint:
        if any(entry.name in self.damaged for entry in self.old.model_files):
            raise _CannotRepair("it takes the model, which is damaged too")
        if self._model is None:
            place = (self.folder / self.old.model_files[0].name).parent
            self._model = self._load_model(place)
        return self._model

    def _old_gallery(self) -> Gallery | None:
        entry = self.old.gallery
        assert entry is not None
        return None if entry.name in self.damaged else open_gallery(self.folder, entry)

    def _shard(self, number: int) -> None:
        gallery = self._old_gallery()
        if gallery is None:
            raise _CannotRepair(
                "which images it held stands in the gallery file, which is damaged too; run the "
                "build-index command again: it encodes the damaged shards alone"
            )
        try:
            entry = encode_again(
                self.folder,
                self.old,
                number,
                gallery,
                self.root,
                self._checkpoint(),
                self.device,
                self.progress,
            )
        except ValueError as error:
            raise _CannotRepair(str(error)) from error
        shards = list(self.manifest.shards)
        shards[number] = entry
        self.manifest = replace(self.manifest, shards=tuple(shards))

    def _files(self) -> list[ShardFile]:
        shards = self.manifest.shards
        if any(shard.file.name in self.damaged for shard in shards if shard.file):
            raise _CannotRepair("it is made from the shards, some of which are damaged")
        return open_shards(self.folder, shards, verify=False)

    def _gallery(self) -> None:
        files = self._files()
        old = self._old_gallery()
        schema = Schema.from_json(self.manifest.schema)
        if old is not None:
            entry = _from_gallery(self.folder, files, old)
        else:
            entry = _from_dataset(self.folder, files, self._find_dataset(self.manifest), schema)
        self.manifest = replace(self.manifest, gallery=entry)

    def _search(self) -> None:
        files, gallery = self._files(), self.manifest.gallery
        assert gallery is not None
        if gallery.name in self.damaged:
            raise _CannotRepair("it takes the gallery file, which is damaged too")
        opened = open_gallery(self.folder, gallery, False)
        store = Store(self.folder, self.manifest, opened, files, False)
        old = self.old.search
        search = build_search(store, old.target, old.factory, self._requests, self.progress)
        self.manifest = replace(self.manifest, search=replace(search, asked=old.asked))


def _from_gallery(folder: Path, files: list[ShardFile], old: Gallery) -> FileEntry:
    """The gallery file anew, with what the old one says of each image."""
    listed, start = [], 0
    for file in files:
        own = np.zeros(int(file.rows.listed.max()) + 1, np.int64)
        own[file.rows.listed] = np.arange(start, start + len(file.rows))
        listed.append(own)
        start += len(file.rows)
    return write_gallery(folder, files, listed, known_of(old))


def _from_dataset(
    folder: Path, files: list[ShardFile], dataset: Dataset, schema: Schema
) -> FileEntry:
    """The gallery file anew, with what the dataset says of each image."""
    places: dict[str, list[int]] = {}
    for row in range(len(dataset) - 1, -1, -1):
        places.setdefault(dataset.paths[row], []).append(row)
    listed: list[NDArray[np.int64]] = []
    for file in files:
        own = np.zeros(int(file.rows.listed.max()) + 1, np.int64)
        for position, path in zip(file.rows.listed.tolist(), file.rows.paths, strict=True):
            rows = places.get(path)
            if not rows:
                raise _CannotRepair(f"the dataset {dataset.name!r} does not have the image {path}")
            own[position] = rows.pop() if len(rows) > 1 else rows[0]
        listed.append(own)
    labels = align_labels(dataset.labels, dataset.schema, schema).labels
    known = Known(labels, dataset.splits, np.arange(len(dataset)), dataset.items, dataset.payload)
    return write_gallery(folder, files, listed, known)
