"""Where listed pictures are: paths as people write them, made paths of files inside a folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

_TRIED = 50
"""So many listed paths decide what all of them begin with."""


def folder_name(folder: Path) -> str:
    """The name of a folder as it was given: of `.` its own, of a link the link's."""
    return Path(os.path.abspath(folder.expanduser())).name


def located(root: Path, listed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Listed paths [N] relative to `root` as its files are named, and remarks.

    Backslashes part folders if that finds files, or most paths hold them. Absolute paths, and
    those that begin at another folder, lose what is above `root`, or gain one folder below it, if
    files are there then. Names that differ from one file's in case or Unicode's forms only are that
    file's. What is found nowhere stays as listed.
    """
    paths = list(listed)
    notes = []
    files = _Files(root)
    sample = paths[:: max(1, len(paths) // _TRIED)]
    back = [p for p in sample if "\\" in p]
    # On most systems a name may hold one.
    if back and (len(back) > len(sample) / 2 or any(files.has(p.replace("\\", "/")) for p in back)):
        paths = [p.replace("\\", "/") for p in paths]
    paths = [
        ("/" if p.startswith("/") else "") + "/".join(_parts(p)) if "//" in p or "./" in p else p
        for p in paths
    ]
    cut, before = _begin(root, files, paths)
    if cut or before:
        changed = "/".join(paths[0].split("/")[:cut])
        notes.append(
            f"pictures are looked for below {before!r}"
            if before
            else f"what listed paths begin with is left out: {changed!r}"
        )
        paths = [before + "/".join(_parts(p)[cut:]) for p in paths]
    found = files.find_all(paths)
    other = [new for new, old in zip(found, paths, strict=True) if new != old]
    if other:
        notes.append(
            f"paths whose letters differ from the file's: {len(other):,}, first {other[0]!r}"
        )
    return found, notes


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _begin(root: Path, files: _Files, paths: Sequence[str]) -> tuple[int, str]:
    """How many leading parts of all paths to leave out, and the folder to put before them."""
    step = max(1, len(paths) // _TRIED)
    sample = [p for p in paths[::step] if ".." not in p.split("/")]
    outside = any(p.startswith("/") or re.match("[A-Za-z]:/", p) for p in sample)

    def hits(cut: int, before: str = "") -> int:
        named = (before + "/".join(_parts(p)[cut:]) for p in sample if len(_parts(p)) > cut)
        return sum(files.has(path) for path in named)

    if not sample or (not outside and hits(0)):
        return 0, ""
    depth = min(len(_parts(p)) for p in sample)
    ways: list[tuple[int, str]] = [(cut, "") for cut in range(1, depth)]
    if not outside:
        ways += [(0, f"{folder}/") for folder in files.folders()]
    best = max(ways, key=lambda way: hits(*way), default=(0, ""))
    if best != (0, "") and hits(*best):
        return best
    own = folder_name(root)  # of absolute paths whose files are gone the folder's name still tells
    places = {tuple(_parts(p)[: _parts(p).index(own)]) for p in sample if own in _parts(p)[:-1]}
    if outside and len(places) == 1 and all(own in _parts(p)[:-1] for p in sample):
        return len(places.pop()) + 1, ""
    return 0, ""


class _Files:
    """Names of the files in the folders below `root`, each folder listed once, when it is asked
    for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str]] = {}
        self._folded: dict[str, dict[str, str]] = {}
        self._real: dict[str, str] = {"": ""}

    def find(self, path: str) -> str:
        """The path of the file that is meant, or `path` if there is none."""
        folder, slash, name = path.rpartition("/")
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = self.find(folder)
        names = self._listed(real)
        if names and name not in names:
            if real not in self._folded:
                self._folded[real] = dict(_once(names))
            name = self._folded[real].get(_fold(name), name)
        return f"{real}{slash}{name}"

    def find_all(self, paths: Sequence[str]) -> list[str]:
        """`find` of each path; quick where there are none, or they are called so."""
        out = []
        for path in paths:
            folder, _, name = path.rpartition("/")
            listed = self._names.get(folder)
            there = listed is not None and (not listed or name in listed)
            out.append(path if there else self.find(path))
        return out

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        folder, _, name = self.find(path).rpartition("/")
        return name in self._listed(folder)

    def folders(self) -> Iterator[str]:
        """Folders in `root`, sorted."""
        yield from (n for n in sorted(self._listed("")) if (self._root / n).is_dir())

    def _listed(self, folder: str) -> set[str]:
        if folder not in self._names:
            inside = not os.path.isabs(folder) and ".." not in folder.split("/")
            try:
                names = set(os.listdir(self._root / folder)) if inside else set[str]()
            except (OSError, ValueError):
                names = set()
            self._names[folder] = names
        return self._names[folder]


def _once(names: set[str]) -> Iterator[tuple[str, str]]:
    """Folded name -> name, of those that no other is like."""
    counts: dict[str, list[str]] = {}
    for name in names:
        counts.setdefault(_fold(name), []).append(name)
    return ((folded, own[0]) for folded, own in counts.items() if len(own) == 1)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
