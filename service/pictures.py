"""Pictures that were encoded lately, by the SHA-256 of their files: encode once, ask often.

They lie in one SQLite file that all workers share, so that any of them answers for any picture. Of
a picture there is what the model sees in it and, of one that is to be shown, a thumbnail; never the
file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Lock

import numpy as np

from retrieval.picture import Picture

KEPT = 4096
"""Pictures, 3 to 20 KB each."""


class Pictures:
    """The file at `path`, made if it is missing; the last `most` pictures stay. Threads and
    processes may share it."""

    def __init__(self, path: Path, most: int = KEPT) -> None:
        self._most, self._lock = most, Lock()
        self._base = sqlite3.connect(
            path, timeout=10, check_same_thread=False, isolation_level=None
        )
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=OFF")  # it ends with the service
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS pictures (number INTEGER PRIMARY KEY AUTOINCREMENT, "
            "id BLOB, model TEXT, chances BLOB, nuance BLOB, thumbnail BLOB, UNIQUE (id, model))"
        )

    def keep(self, model: str, picture: Picture, thumbnail: bytes | None) -> None:
        """Keep a picture of a file as a model sees it; without a thumbnail an older one stays."""
        parts = picture.digest, model, picture.chances.tobytes(), picture.nuance.tobytes()
        if thumbnail is None:
            thumbnail = self.thumbnail(picture.digest or b"")
        with self._lock:
            self._base.execute(
                "INSERT OR REPLACE INTO pictures (id, model, chances, nuance, thumbnail) "
                "VALUES (?, ?, ?, ?, ?)",
                (*parts, thumbnail),
            )
            self._base.execute(
                "DELETE FROM pictures WHERE number <= (SELECT MAX(number) FROM pictures) - ?",
                (self._most,),
            )

    def find(self, model: str, digest: bytes) -> Picture | None:
        """A picture as a model sees it; None if it is not kept."""
        with self._lock:
            found = self._base.execute(
                "SELECT chances, nuance FROM pictures WHERE id = ? AND model = ?", (digest, model)
            ).fetchone()
        if found is None:
            return None
        chances, nuance = (np.frombuffer(part, np.float32) for part in found)
        return Picture(chances, nuance, digest)

    def thumbnail(self, digest: bytes) -> bytes | None:
        """JPEG of a picture that is to be shown; None if there is none."""
        with self._lock:
            found = self._base.execute(
                "SELECT thumbnail FROM pictures WHERE id = ? AND thumbnail NOT NULL", (digest,)
            ).fetchone()
        return None if found is None else found[0]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()
