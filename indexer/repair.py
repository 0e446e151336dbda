"""Making an index whole again: from its own shards, its images, its dataset and its checkpoint.

Shards are the truth. A damaged one is encoded again from the images, it alone; the gallery file
follows from the shards and the dataset, the lists of a search from the shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.build_search import build_search
from indexer.gallery import Known, open_gallery, write_gallery
from indexer.lock import writer_lock
from indexer.manifest import Manifest, ShardEntry, commit_manifest, sweep
from indexer.plan import EncodedImages, ShardPlan, ShardWork, Work
from indexer.progress import Progress
from indexer.shard import ShardFile, open_shards
from indexer.store import Store
from indexer.verify import Verification, verify_index
from indexer.version import Means, copy_model, write_shards
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, UsageError
from training.schema import Schema


@dataclass(frozen=True)
class RepairOptions:
    """How an index is repaired.

    Args:
        load_model: `training.checkpoint.load_checkpoint` for the device.
        find_dataset: the dataset that the index was built from; only asked if the gallery file is
            lost. It raises a RetrieveError if there is none.
        root: where the images are now; where they were by default.
        checkpoint: a copy of the model, should the index's own be damaged.
        device: where shards are encoded.
    """

    load_model: Callable[[Path], Checkpoint]
    find_dataset: Callable[[Manifest], Dataset]
    root: Path | None = None
    checkpoint: Path | None = None
    device: str = "cpu"


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


def repair_index(folder: Path, options: RepairOptions, progress: Progress) -> Repair:
    """Check an index, restore what is damaged and check it again.

    Raises:
        DataError, CorruptStoreError: as `verify_index`.
        LockedError: another process writes to the index.
        ResourceError: disk or memory full.
    """
    with writer_lock(folder):
        before = verify_index(folder, progress)
        work = _Repairing(folder, before, options, progress)
        if before.damaged:
            work.run()
        return Repair(before, verify_index(folder, progress), work.why)


class _Repairing:
    """One repair: the manifest as it grows whole, and what could not be done."""

    def __init__(
        self, folder: Path, before: Verification, options: RepairOptions, progress: Progress
    ) -> None:
        self.folder, self.options, self.progress = folder, options, progress
        self.old = self.manifest = before.version
        self.damaged = set(before.damaged)
        self.why: dict[str, str] = {}

    def run(self) -> None:
        """Restore in the order in which files depend on each other, then commit."""
        old, damaged = self.old, self.damaged
        if self.options.checkpoint is not None:
            self._attempt([entry.name for entry in old.model_files], self._copy)
        for entry in old.model_files:
            if entry.name in damaged:
                self.why.setdefault(entry.name, "give a copy of the model with --checkpoint")
        lost = [n for n, s in enumerate(old.shards) if s.file and s.file.name in damaged]
        if lost:
            self._attempt(self._names(lost), lambda: self._shards(lost))
        assert old.gallery is not None, "an index that was committed has a gallery file"
        if old.gallery.name in damaged:
            self._attempt([old.gallery.name], self._gallery)
        search, moved = old.search.file, self.manifest.content != old.content
        if search is not None and (search.name in damaged or moved):
            self._attempt([search.name], self._search)
        if not moved or not self.why:
            commit_manifest(self.folder, self.manifest)
            if not self.why:
                sweep(self.folder, self.manifest, halted=True)

    def _attempt(self, names: list[str], work: Callable[[], None]) -> None:
        try:
            work()
        except (_CannotRepair, DataError, CorruptStoreError, UsageError) as error:
            self.why |= dict.fromkeys(set(names) & (self.damaged - set(self.why)), str(error))
        else:
            self.damaged -= set(names) - set(self.why)

    def _names(self, numbers: list[int]) -> list[str]:
        return [file.name for n in numbers if (file := self.old.shards[n].file)]

    def _copy(self) -> None:
        assert self.options.checkpoint is not None
        loaded = self.options.load_model(self.options.checkpoint)  # a run's stands for its best
        if loaded.hash != self.old.identity.model:
            raise _CannotRepair(f"{self.options.checkpoint} holds another model")
        copy_model(loaded.folder, self.folder)

    def _shards(self, lost: list[int]) -> None:
        """Encode shards again, from the images that they held, as they were encoded before."""
        old, gallery = self.old, self.old.gallery
        if any(entry.name in self.damaged for entry in old.model_files):
            raise _CannotRepair("it takes the model, which is damaged too")
        if gallery is None or gallery.name in self.damaged:
            raise _CannotRepair(
                "which images it held stands in the gallery file, which is damaged too; run the "
                "build-index command again: it encodes the damaged shards alone"
            )
        model = self.options.load_model((self.folder / old.model_files[0].name).parent).model
        means = Means(model, self.options.device, self.progress)
        paths = open_gallery(self.folder, gallery).paths
        ends = np.cumsum([shard.rows for shard in old.shards]).tolist()
        work = []
        for number in lost:
            shard = old.shards[number]
            listed = listed_paths(shard, paths[ends[number] - shard.rows : ends[number]])
            work.append(ShardWork.anew(ShardPlan(number, np.arange(len(listed)), listed)))
        done = {n: shard for n, shard in enumerate(old.shards) if n not in lost}
        draft = replace(old, root=str(self.options.root or old.root))
        todo = Work(list(paths), done, work, EncodedImages(self.folder))
        found = list(write_shards(self.folder, draft, todo, means).shards)
        for number in lost:
            if found[number].content != old.shards[number].content:
                self.why |= dict.fromkeys(
                    self._names([number]), _what_changed(old.shards[number], found[number], draft)
                )
                found[number] = old.shards[number]
        self.manifest = replace(self.manifest, shards=tuple(found))

    def _files(self) -> list[ShardFile]:
        """The shards, if they are whole again."""
        shards = self.manifest.shards
        if any(shard.file.name in self.damaged for shard in shards if shard.file):
            raise _CannotRepair("it is made from the shards, some of which are damaged")
        return open_shards(self.folder, shards, verify=False)

    def _gallery(self) -> None:
        """The gallery file anew, with what the dataset says of each image."""
        files = self._files()
        dataset = self.options.find_dataset(self.manifest)
        places: dict[str, list[int]] = {}
        for row in range(len(dataset) - 1, -1, -1):
            places.setdefault(dataset.paths[row], []).append(row)
        paths = [path for file in files for path in file.rows.paths]
        for path in paths:
            if path not in places:
                raise _CannotRepair(f"the dataset {dataset.name!r} does not have the image {path}")
        rows = [own.pop() if len(own := places[path]) > 1 else own[0] for path in paths]
        known = Known.of(dataset, Schema.from_json(self.manifest.schema), self.progress.say)
        gallery = write_gallery(self.folder, paths, np.array(rows), known)
        self.manifest = replace(self.manifest, gallery=gallery)

    def _search(self) -> None:
        files, gallery, old = self._files(), self.manifest.gallery, self.old.search
        if gallery is None or gallery.name in self.damaged:
            raise _CannotRepair("it takes the gallery file, which is damaged too")
        opened = open_gallery(self.folder, gallery, verify=False)
        store = Store(self.folder, self.manifest, opened, files, verify=False)
        search = build_search(store, old.target, old.factory, None, self.progress)
        self.manifest = replace(self.manifest, search=replace(search, asked=old.asked))


def listed_paths(shard: ShardEntry, paths: list[str]) -> list[str]:
    """All paths that were listed for a shard, in order: its images', and the unreadable ones'."""
    listed = list(paths)
    for reject in shard.rejects:  # in their order
        listed.insert(reject.place, reject.path)
    return listed


def _what_changed(old: ShardEntry, found: ShardEntry, manifest: Manifest) -> str:
    known = {reject.path for reject in old.rejects}
    gone = [reject for reject in found.rejects if reject.path not in known]
    what = "its images have changed since they were encoded"
    if gone:
        what = (
            f"{len(gone):,} of its {old.rows:,} images cannot be read any more, such as "
            f"{Path(manifest.root) / gone[0].path} ({gone[0].reason})"
        )
    return f"{what}; restore them, or run the build-index command again"
