"""Checking every file of an index against its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from indexer.committed import COPY_NAME, Committed, committed_versions
from indexer.manifest import (
    BUILDING_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    read_manifest,
)
from indexer.progress import Progress, Silent
from indexer.store_file import problem_of
from training.errors import CorruptStoreError, DataError

Kind = Literal["manifest", "model", "shard", "gallery", "search"]


@dataclass(frozen=True)
class Finding:
    """What a check of one file gave.

    Args:
        file: its name relative to the index's folder.
        kind: what it is.
        problem: what is wrong with it; None if it is sound.
    """

    file: str
    kind: Kind
    problem: str | None


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
    meanwhile, the files of its version are checked.

    Raises:
        DataError: there is no finished index.
        CorruptStoreError: neither the manifest nor its copy can be read.
    """
    while True:
        before = _state(folder)
        found = _verify(folder, progress or Silent(), before[1])
        if not found.damaged or _state(folder) == before:
            return found


def _state(folder: Path) -> tuple[list[Committed], Manifest]:
    """What an index is said to be, and the version to check."""
    manifest = usable_version(folder).manifest
    return list(committed_versions(folder)), manifest


def _verify(folder: Path, progress: Progress, manifest: Manifest) -> Verification:
    named = dict(named_files(manifest))
    progress.start("files", len(named))

    def checked(entry: FileEntry) -> str | None:
        problem = problem_of(folder, entry)
        progress.advance(1)
        return problem

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets go of Python
        problems = list(pool.map(checked, named))
        findings = _manifests(folder, manifest)
        findings += [
            Finding(entry.name, kind, problem)
            for (entry, kind), problem in zip(named.items(), problems, strict=True)
        ]
    return Verification(manifest, tuple(findings))


def usable_version(folder: Path) -> Committed:
    """The first version whose files are all there, else the first; raises as `verify_index`."""
    versions = list(committed_versions(folder))
    if not versions or versions[0].manifest.gallery is None:
        raise DataError(f"no finished index in {folder}; build one with: retrieve build-index")
    whole = [v for v in versions if all((folder / e.name).exists() for e in v.manifest.files)]
    return (whole or versions)[0]


def named_files(manifest: Manifest) -> Iterator[tuple[FileEntry, Kind]]:
    """Every file of a version, with what it is."""
    yield from ((entry, "model") for entry in manifest.model_files)
    yield from ((shard.file, "shard") for shard in manifest.shards if shard.file)
    if manifest.gallery is not None:
        yield manifest.gallery, "gallery"
    if manifest.search.file is not None:
        yield manifest.search.file, "search"


def _manifests(folder: Path, version: Manifest) -> list[Finding]:
    findings = []
    for name in (MANIFEST_NAME, COPY_NAME, BUILDING_NAME):
        problem = None
        try:
            found = read_manifest(folder / name)
        except CorruptStoreError:
            problem = "damaged"
        else:
            if found is None and name != MANIFEST_NAME:
                continue  # older versions wrote no copy; and no build was interrupted
            if found is None:
                problem = "missing"
            elif name == MANIFEST_NAME and found != version:
                problem = "names files that are gone"
        findings.append(Finding(name, "manifest", problem))
    return findings
