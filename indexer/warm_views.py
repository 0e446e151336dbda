"""Views that were computed for queries and are kept beside the index, within a byte budget.

    warm/<key>-<hash>.faiss   a flat file
    warm/<key>.json           what it is; modified when the view was last used
    warm/lock                 held for the moment in which files come and go

The manifest knows nothing of them: a query must not rewrite the commit point. They can be computed
again, so whatever is wrong with one of them, it is ignored, and removed at the next write.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.atomic import TEMPORARY_PREFIX, commit, temporary_file, write_file
from indexer.committed import read_committed
from indexer.flat_file import FlatFileWriter, flat_header, map_flat
from indexer.store_file import check_quickly, describe_file, open_file
from indexer.view import View
from indexer.views import NamedCondition
from indexer.warm_entry import WarmEntry, read_entry, write_entry
from training.errors import CorruptStoreError, DataError, ResourceError

FOLDER = "warm"
DEFAULT_BUDGET = 4_000_000_000
"""Bytes of warm views that are kept unless something else is said: seven of 253,983 x 512."""

_LOCK = "lock"
_OURS = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{12}\.faiss|\.json)")
_STALE = 86_400  # seconds after which a temporary file is nobody's, whatever runs under its pid


@dataclass(frozen=True)
class Kept:
    """Whether a view was kept, and if not, why."""

    kept: bool
    why: str = ""


class WarmViews:
    """The warm set of one version of an index; several processes may use it at once.

    Args:
        store_folder: the index.
        content: `Manifest.content`; views of other maps are ignored.
        budget_bytes: what all views together may take on the disk; 0 keeps none.
        verify: check a file's content before it is used.
    """

    def __init__(
        self,
        store_folder: Path,
        content: str,
        budget_bytes: int = DEFAULT_BUDGET,
        verify: bool = True,
    ) -> None:
        self.folder = store_folder / FOLDER
        self.content, self.budget_bytes, self.verify = content, budget_bytes, verify
        self._damaged: set[str] = set()  # files whose content was found to be wrong

    def list(self) -> tuple[WarmEntry, ...]:
        """The views that are there, the last used first. Contents are not checked."""
        entries = [e for path in self._sidecars() if (e := self._entry(path)) is not None]
        return tuple(sorted(entries, key=lambda entry: (-entry.last_used_ns, entry.key)))

    def load(self, key: str) -> View | None:
        """Open a view and note that it was used; None if it is not there, damaged, or too many
        files are open."""
        entry = self._entry(self.folder / f"{key}.json")
        if entry is None:
            return None
        try:
            with open_file(self.folder, entry.file) as handle:
                if self.verify:
                    check_quickly(self.folder, entry.file, handle)
                vectors = map_flat(handle, entry.rows, entry.dim)
        except CorruptStoreError:
            self._damaged.add(entry.file.name)
            return None
        except ResourceError:
            return None
        self.touch(key)
        return View(entry.key, entry.name, vectors)

    def has(self, key: str) -> bool:
        """Whether a view is there; its content is not checked."""
        return self._entry(self.folder / f"{key}.json") is not None

    def touch(self, key: str) -> None:
        """Note that a view was used now; nothing happens if it is gone or cannot be written."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / f"{key}.json", ns=(time.time_ns(),) * 2)

    def save(
        self,
        named: NamedCondition,
        vectors: NDArray[np.float32] | Iterable[NDArray[np.float32]],
        seconds: float | None = None,
        rows: int | None = None,
    ) -> Kept:
        """Keep a view; the least recently used ones go until all fit the budget.

        Args:
            named: its condition.
            vectors: unit vectors [N, d] float32, or parts of them in row order.
            seconds: that they took to compute; by default, that drawing the parts takes.
            rows: N; needed with parts.

        Returns:
            Whether it is kept; not if it alone is over the budget, the disk is full or the folder
            cannot be written to. That is no error: it is computed again when it is asked for.
        """
        if isinstance(vectors, np.ndarray):
            rows, parts = len(vectors), iter([vectors])
        else:
            parts = iter(vectors)
        assert rows is not None, "the number of rows has to be given with parts"
        started = time.monotonic()
        first = next(parts, np.empty((0, 0), np.float32))
        dim = first.shape[1]
        size = rows * dim * 4 + len(flat_header(rows, dim))
        if size > self.budget_bytes:
            return Kept(False, f"{size:,} bytes are over the budget of {self.budget_bytes:,} bytes")
        try:
            with temporary_file(self.folder) as path:
                with FlatFileWriter(path, rows, dim) as writer:
                    writer.append(first)
                    for part in parts:
                        writer.append(part)
                if seconds is None:
                    seconds = time.monotonic() - started
                self._commit(path, named, rows, dim, seconds)
        except (ResourceError, CorruptStoreError, DataError) as error:
            return Kept(False, str(error))
        return Kept(True)

    def drop(self, key: str) -> bool:
        """Remove a view; whether it was there. Raises ResourceError."""
        with self._locked():
            entry = self._entry(self.folder / f"{key}.json")
            if entry is not None:
                self._remove(entry)
        return entry is not None

    def clear(self) -> int:
        """Remove all views; how many there were. Raises ResourceError."""
        if not self.folder.is_dir():
            return 0
        with self._locked():
            entries = self.list()
            for entry in entries:
                self._remove(entry)
            self._clean()
        return len(entries)

    def clean(self) -> None:
        """Remove what is damaged, of other maps, or left by killed writers. Raises ResourceError.

        Files that this program does not make are left alone, here as everywhere.
        """
        if self.folder.is_dir():
            with self._locked():
                self._clean()

    def _commit(
        self, path: Path, named: NamedCondition, rows: int, dim: int, seconds: float
    ) -> None:
        file = describe_file(path, f"{named.key}-{{}}.faiss")
        _sync(path)  # before the lock: others need not wait for the disk
        entry = WarmEntry(
            key=named.key,
            name=named.name,
            present=tuple(np.flatnonzero(named.condition > 0).tolist()),
            absent=tuple(np.flatnonzero(named.condition < 0).tolist()),
            content=self.content,
            rows=rows,
            dim=dim,
            file=file,
            seconds=round(seconds, 3),
            last_used_ns=0,
        )
        with self._locked():
            now = read_committed(self.folder.parent)
            if now is not None and now.manifest.content != self.content:
                raise DataError("the index has been built anew since it was opened")
            self._evict(self.budget_bytes - file.size, keep=named.key)
            commit(path, self.folder / file.name)
            self._damaged.discard(file.name)
            write_file(self.folder / f"{named.key}.json", write_entry(entry))
            self.touch(named.key)
            self._clean()

    def _evict(self, budget: int, keep: str) -> None:
        """Remove the least recently used others until they fit."""
        entries = [entry for entry in self.list() if entry.key != keep]
        while sum(entry.file.size for entry in entries) > budget and entries:
            self._remove(entries.pop())

    def _remove(self, entry: WarmEntry) -> None:
        # The sidecar first: a view is there as long as its sidecar is.
        (self.folder / f"{entry.key}.json").unlink(missing_ok=True)
        (self.folder / entry.file.name).unlink(missing_ok=True)

    def _clean(self) -> None:
        entries = self.list()
        named = {e.file.name for e in entries} | {f"{e.key}.json" for e in entries}
        for path in self.folder.iterdir():
            ours = _OURS.fullmatch(path.name) and path.name not in named
            if ours or _is_left_over(path):
                path.unlink(missing_ok=True)

    def _sidecars(self) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return
        yield from (self.folder / name for name in names if name.endswith(".json"))

    def _entry(self, path: Path) -> WarmEntry | None:
        entry = read_entry(path)
        if entry is None or entry.content != self.content or entry.file.name in self._damaged:
            return None
        try:
            size = (self.folder / entry.file.name).stat().st_size
        except OSError:
            return None
        return entry if size == entry.file.size else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ResourceError(f"cannot write {self.folder / _LOCK}: {reason}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ResourceError(f"cannot write {self.folder}: {reason}") from error
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_left_over(path: Path) -> bool:
    """Whether a temporary file belongs to no process that runs."""
    if not path.name.startswith(TEMPORARY_PREFIX):
        return False
    pid = path.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0]
    try:
        if time.time() - path.stat().st_mtime > _STALE:
            return True
        os.kill(int(pid), 0)
    except PermissionError:
        return False  # another user's
    except (OSError, ValueError, OverflowError):
        return True
    return False
