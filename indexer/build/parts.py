"""Encoding a gallery in parts, by processes that need not know of each other, and merging them.

A part has a folder of its own, `parts/3-of-16` in that of the index, with a lock of its own. It
holds what an interrupted build has left: shards, and `building.json`, which lists them. A merge
puts the shards of all parts into the index's folder, and is then a build with nothing to encode.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.build.build import BuildOptions, BuildReport, Job, finish, prepare
from indexer.build.shards import Done, ShardPlan, Work, list_hash
from indexer.build.version import runtime_of
from indexer.progress import Progress
from indexer.store.files import problem_of
from indexer.store.manifest import (
    BUILDING_NAME,
    PARTS_NAME,
    Manifest,
    ShardEntry,
    read_manifest,
    sweep,
    write_manifest,
    writer_lock,
)
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, LockedError, UsageError
from training.files import as_resource_error, commit, temporary_file, write_file

_PLAN_NAME = "part.json"


@dataclass(frozen=True)
class Part:
    """Every `of`-th shard, from shard `number` - 1 on: no two parts differ by more than a shard."""

    number: int  # 1..of
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read `3/16`; raises UsageError."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"part {text!r} is none; give such as 3/16, from 1/16 to 16/16")
        return cls(int(found[1]), int(found[2]))

    def folder(self, out: Path) -> Path:
        """Where it lies in the folder of an index."""
        return out / PARTS_NAME / f"{self.number}-of-{self.of}"

    def pick(self, plans: list[ShardPlan]) -> list[ShardPlan]:
        """Its shards, of all."""
        return plans[self.number - 1 :: self.of]


@dataclass(frozen=True)
class _Plan:
    """What a gallery was cut into, to tell parts that do not belong together; `part.json`."""

    part: int
    parts: int
    images: int  # of the whole gallery
    shard_rows: int
    image_list: str  # hash of all listed paths

    @classmethod
    def of(cls, part: Part, job: Job) -> _Plan:
        paths = [path for plan in job.plans for path in plan.paths]
        rows = len(job.plans[0].paths)
        return cls(part.number, part.of, len(paths), rows, list_hash(paths))


def build_part(
    dataset: Dataset,
    rows: NDArray[np.int64],
    checkpoint: Checkpoint,
    out: Path,
    part: Part,
    options: BuildOptions,
) -> BuildReport:
    """Encode the shards of a part of what `build_index` would build, for `merge_parts`.

    Interrupted, the same call goes on after the last committed shard. Parts of one folder may be
    encoded at once. Arguments and errors are those of `build_index`; that images cannot be read is
    an error of the merge, which counts all of them.
    """
    job = prepare(dataset, rows, checkpoint, options)
    own = replace(job, plans=part.pick(job.plans))
    if not own.plans:
        job.means.progress.say(
            f"part {part} is empty: the gallery has {len(job.plans)} shards; use fewer parts, or "
            "smaller shards (--shard-rows)"
        )
    folder = part.folder(out)
    with writer_lock(folder):
        write_file(folder / _PLAN_NAME, msgspec.json.encode(_Plan.of(part, job)))
        encoded = own.write(folder, job.draft())
        write_manifest(folder / BUILDING_NAME, encoded.manifest)
        sweep(folder, encoded.manifest, halted=True)
    return own.report(folder, encoded, encoded.manifest, None)


def merge_parts(
    dataset: Dataset,
    rows: NDArray[np.int64],
    checkpoint: Checkpoint,
    out: Path,
    folders: Sequence[Path],
    options: BuildOptions,
) -> BuildReport:
    """Commit the parts in `folders` (those that they were given as `out`) as the index in `out`.

    The index is, to the byte, that of `build_index` with the same arguments. Parts that lie in
    `out` itself are removed then. How many parts there were, and whether all were of one number,
    does not matter: every shard has to be there.

    Raises:
        DataError: a shard is missing, or its pictures have changed, or a part was made with another
            model, of another list of images, or in other shards; too many broken images.
        CorruptStoreError: a part's list of shards is damaged.
        others: as `build_index`.
    """
    found = [part for folder in folders for part in _parts_in(folder)]
    if not found:
        where = ", ".join(str(folder / PARTS_NAME) for folder in folders)
        raise DataError(f"no part in {where}; make each with `retrieve build-index --part 1/16`")
    runtime, precision = runtime_of(found[0].manifest.identity.precision)
    options = replace(options, runtime=runtime, precision=precision, device="cpu")
    job = prepare(dataset, rows, checkpoint, options)
    for part in found:
        _check_same(part, job)
    there = {entry.paths: (part, entry) for part in found for entry in part.manifest.shards}
    of = found[0].plan.parts
    lacking = [plan for plan in job.plans if list_hash(plan.paths) not in there]
    if lacking:
        raise DataError(
            f"{len(lacking):,} of {len(job.plans):,} shards are missing: {_which(lacking, of)}"
        )
    shards = [there[list_hash(plan.paths)] for plan in job.plans]
    with writer_lock(out):
        for part, entry in shards:
            _put(part.folder, out, entry)
        entries = tuple(entry for _, entry in shards)
        write_manifest(out / BUILDING_NAME, replace(job.draft(), shards=entries))
    report = finish(replace(job, means=_NothingLeft(of, job.means.progress)), out)
    for found_part in (out / PARTS_NAME).glob("*-of-*"):
        with suppress(LockedError), writer_lock(found_part), as_resource_error(found_part):
            shutil.rmtree(found_part)
    with suppress(OSError):  # a part is being made
        (out / PARTS_NAME).rmdir()
    return report


@dataclass(frozen=True)
class _Found:
    """A part on disk."""

    folder: Path
    plan: _Plan
    manifest: Manifest


def _parts_in(folder: Path) -> Iterator[_Found]:
    for place in sorted((folder / PARTS_NAME).glob("*-of-*")):
        manifest = read_manifest(place / BUILDING_NAME)
        if manifest is None:
            continue  # it was ended before its first shard
        try:
            plan = msgspec.json.decode((place / _PLAN_NAME).read_bytes(), type=_Plan)
        except (OSError, msgspec.MsgspecError) as error:
            raise CorruptStoreError(
                f"{place / _PLAN_NAME}: {error}; make the part again"
            ) from error
        yield _Found(place, plan, manifest)


def _check_same(part: _Found, job: Job) -> None:
    """Raise DataError if a part was not made of the same things as what it shall be part of."""
    plan = _Plan.of(Part(part.plan.part, part.plan.parts), job)
    ours = {"dataset": job.dataset.name} | asdict(job.identity) | asdict(plan)
    theirs = {"dataset": part.manifest.dataset} | asdict(part.manifest.identity) | asdict(part.plan)
    differ = [
        f"{name.replace('_', ' ')} {str(theirs[name])[:12]} instead of {str(value)[:12]}"
        for name, value in ours.items()
        if theirs[name] != value and name != "layout"  # it follows from the model
    ]
    if differ:
        raise DataError(
            f"{part.folder} was made of something else ({'; '.join(differ)}): give the options "
            "that it was made with, or remove it and make it again"
        )


def _which(plans: Sequence[ShardPlan], of: int) -> str:
    """Shards, and the parts that make them."""
    numbers = [plan.number for plan in plans]
    parts = sorted({number % of + 1 for number in numbers})
    some = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    named = ", ".join(f"--part {part}/{of}" for part in parts[:10])
    return f"{some}; run `retrieve build-index` with {named}{', ...' if len(parts) > 10 else ''}"


def _put(origin: Path, out: Path, entry: ShardEntry) -> None:
    """Have the file of a shard in `out` too: the same one where the file system can."""
    if entry.file is None or problem_of(out, entry.file) is None:
        return
    theirs, place = origin / entry.file.name, out / entry.file.name
    if not theirs.is_file():
        raise CorruptStoreError(f"{theirs} is missing; make the part again")
    with temporary_file(place.parent) as temporary:
        try:
            os.link(theirs, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(theirs, temporary)
        commit(temporary, place)


@dataclass(frozen=True)
class _NothingLeft:
    """`Means` of a merge."""

    of: int  # parts
    progress: Progress

    def encode(self, folder: Path, draft: Manifest, todo: Work, committed: Done) -> None:
        """Raise DataError: a shard was found, and does not fit."""
        plans = [work.plan for work in todo.work]
        raise DataError(
            f"{len(plans):,} shards are damaged, or their pictures have changed since they were "
            f"encoded: {_which(plans, self.of)}"
        )
