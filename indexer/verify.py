"""Checking every file of an index against its manifest."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from indexer.manifest import (
    BUILDING_NAME,
    COPY_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    committed_versions,
    read_manifest,
)
from indexer.progress import Progress, Silent
from indexer.store_file import problem_of
from training.errors import CorruptStoreError, DataError


@dataclass(frozen=True)
class Finding:
    """What a check of one file gave.

    Args:
        file: its name relative to the index's folder.
        kind: `manifest`, `model`, `shard`, `gallery` or `search`.
        problem: what is wrong with it; None if it is sound.
    """

    file: str
    kind: str
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

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets go of Python
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
        except CorruptStoreError:
            problem = "damaged"
        else:
            if found is None and name != MANIFEST_NAME:
                continue  # a kill came before the copy; and no build was interrupted
            if found is None:
                problem = "missing"
            elif name == MANIFEST_NAME and found != version:
                problem = "names files that are gone"
        findings.append(Finding(name, "manifest", problem))
    return findings
