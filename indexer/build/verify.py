"""Checking every file of an index against its manifest, and restoring what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.build.shards import EncodedImages, ShardPlan, ShardWork, Work, listed_plans
from indexer.build.version import (
    copy_model,
    means_of,
    renewed_search,
    write_shards,
    write_version,
)
from indexer.progress import Progress, Silent
from indexer.store.files import problem_of
from indexer.store.gallery import Known, open_gallery
from indexer.store.manifest import (
    BUILDING_NAME,
    COPY_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    committed_versions,
    read_manifest,
    sweep,
    writer_lock,
)
from indexer.store.shard import open_shards
from training.checkpoint import load_checkpoint
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, UsageError
from training.schema import Schema
from training.threads import threads

_AGAIN = "run the build-index command again: it encodes the damaged shards alone"


@dataclass(frozen=True)
class Finding:
    """What a check of one file gave."""

    file: str  # its name relative to the index's folder
    kind: str  # `manifest`, `model`, `shard`, `gallery` or `search`
    problem: str | None  # what is wrong with it; None if it is sound


@dataclass(frozen=True)
class Verification:
    """A checked index: the version that was checked, and one finding a file."""

    version: Manifest
    findings: tuple[Finding, ...]

    @property
    def damaged(self) -> dict[str, Finding]:
        """What is wrong, by the file's name."""
        return {found.file: found for found in self.findings if found.problem is not None}


def verify_index(folder: Path, progress: Progress | None = None) -> Verification:
    """Read every file of an index and compare its SHA-256 with the manifest.

    The version that is checked is the one that `open_store` would read: the manifest's, or that of
    its copy if the manifest cannot be read or names files that are gone. If another process commits
    meanwhile, the files of its version are checked. Raises DataError if there is no finished index,
    CorruptStoreError if neither the manifest nor its copy can be read.
    """
    while True:
        before = _usable_version(folder)
        found = _verify(folder, progress or Silent(), before[0])
        if not found.damaged or _usable_version(folder) == before:
            return found


def _usable_version(folder: Path) -> tuple[Manifest, list[Manifest]]:
    """The first version whose files are all there, else the first; and all that are committed."""
    versions = [version.manifest for version in committed_versions(folder)]
    if not versions or versions[0].gallery is None:
        raise DataError(f"no finished index in {folder}; build one with: retrieve build-index")
    whole = [v for v in versions if all((folder / entry.name).exists() for entry in v.files)]
    return (whole or versions)[0], versions


def _verify(folder: Path, progress: Progress, manifest: Manifest) -> Verification:
    progress.start("files", len(manifest.files))

    def checked(entry: FileEntry) -> str | None:
        problem = problem_of(folder, entry)
        progress.advance(1)
        return problem

    with ThreadPoolExecutor(min(8, threads())) as pool:  # hashing lets go of Python
        problems = list(pool.map(checked, manifest.files))
    named = zip(manifest.named_files.items(), problems, strict=True)
    files = [Finding(entry.name, kind, problem) for (entry, kind), problem in named]
    return Verification(manifest, (*_manifests(folder, manifest), *files))


def _manifests(folder: Path, version: Manifest) -> list[Finding]:
    findings = []
    for name in (MANIFEST_NAME, COPY_NAME, BUILDING_NAME):
        problem = None
        try:
            found = read_manifest(folder / name)
            if name == MANIFEST_NAME and found != version:
                problem = "names files that are gone" if found else "missing"
            elif found is None:
                continue  # a kill came before the copy; and no build was interrupted
        except CorruptStoreError:
            problem = "damaged"
        findings.append(Finding(name, "manifest", problem))
    return findings


@dataclass(frozen=True)
class RepairOptions:
    """How an index is repaired.

    `find_dataset`, asked only if the gallery file is lost, gives what the index was built from, or
    raises a RetrieveError.
    """

    find_dataset: Callable[[Manifest], Dataset]
    root: Path | None = None  # where the images are now; where they were by default
    checkpoint: Path | None = None  # a copy of the model, should the index's own be damaged
    device: str = "cpu"  # where shards are encoded


@dataclass(frozen=True)
class Repair:
    """What a repair did."""

    before: Verification  # what was wrong
    after: Verification  # what is wrong still; nothing, as a rule
    why: dict[str, str]  # file -> why it could not be repaired


def repair_index(folder: Path, options: RepairOptions, progress: Progress) -> Repair:
    """Check an index, restore what is damaged, all or nothing, and check it again.

    Raises as `verify_index`, LockedError if another process writes to it, and ResourceError.
    """
    with writer_lock(folder):
        before, why = verify_index(folder, progress), ""
        if before.damaged:
            try:
                _restore(folder, before, options, progress)
            except (DataError, CorruptStoreError, UsageError) as error:
                why = str(error)
        after = verify_index(folder, progress)
        return Repair(before, after, dict.fromkeys(after.damaged, why))


def _restore(
    folder: Path, before: Verification, options: RepairOptions, progress: Progress
) -> None:
    old, damaged = before.version, set(before.damaged)
    if options.checkpoint is not None:
        loaded = load_checkpoint(options.checkpoint)  # a run's folder stands for its best epoch
        if loaded.hash != old.identity.model:
            raise DataError(f"{options.checkpoint} holds another model")
        damaged -= {entry.name for entry in copy_model(loaded.folder, folder)}
    if any(entry.name in damaged for entry in old.model_files):
        raise DataError("the model is damaged: give a copy of it with --checkpoint")
    lost = [n for n, s in enumerate(old.shards) if s.file and s.file.name in damaged]
    assert old.gallery is not None, "an index that was committed has a gallery file"
    if old.gallery.name not in damaged:
        gallery = open_gallery(folder, old.gallery)
        plans, known = listed_plans(old.shards, gallery.paths), Known.again(gallery)
    elif lost:
        raise DataError(f"shards and the gallery file, which lists them, are damaged; {_AGAIN}")
    else:
        plans, known = _as_dataset(folder, old, options.find_dataset(old), progress)
    done = {n: shard for n, shard in enumerate(old.shards) if n not in lost}
    paths = [path for plan in plans for path in plan.paths]
    todo = Work(paths, done, [ShardWork.anew(plans[n]) for n in lost], EncodedImages(folder))
    root = options.root or Path(old.root)
    means = means_of(old, (folder / old.model_files[0].name).parent, options.device, progress)
    manifest = write_shards(folder, replace(old, root=str(root)), todo, means)
    for number in lost:
        _check_same(old.shards[number], manifest.shards[number], root)
    manifest = write_version(
        folder,
        replace(manifest, root=old.root),
        plans,
        known,
        lambda store: renewed_search(store, old, old.search, None, progress),
    )
    sweep(folder, manifest, halted=True)


def _as_dataset(
    folder: Path, old: Manifest, dataset: Dataset, progress: Progress
) -> tuple[list[ShardPlan], Known]:
    """The images as the shards hold them, with what the dataset says of each."""
    places: dict[str, list[int]] = {}
    for row in range(len(dataset) - 1, -1, -1):
        places.setdefault(dataset.paths[row], []).append(row)
    files = open_shards(folder, old.shards, verify=False)
    paths = [path for file in files for path in file.rows.paths]
    for path in paths:
        if path not in places:
            raise DataError(f"the dataset {dataset.name!r} does not have the image {path}")
    rows = np.array([own.pop() if len(own := places[p]) > 1 else own[0] for p in paths])
    plans = [replace(p, rows=rows[p.rows]) for p in listed_plans(old.shards, paths)]
    return plans, Known.of(dataset, Schema.from_json(old.schema), progress.say)


def _check_same(old: ShardEntry, found: ShardEntry, root: Path) -> None:
    """Raise DataError if a shard that was encoded again holds other images."""
    if found.content == old.content:
        return
    known = {reject.path for reject in old.rejects}
    gone = [reject for reject in found.rejects if reject.path not in known]
    what = "its images have changed since they were encoded"
    if gone:
        what = (
            f"{len(gone):,} of its {old.rows:,} images cannot be read any more, such as "
            f"{root / gone[0].path} ({gone[0].reason})"
        )
    raise DataError(f"of a damaged shard {what}; restore them, or {_AGAIN}")
