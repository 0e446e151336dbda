"""The sidecar of a warm view: a small JSON file that says what the flat file beside it is."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexer.manifest import FileEntry

_FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WarmEntry:
    """A warm view.

    Args:
        key: short hash of the condition.
        name: the condition in words.
        present: flat indices of the values marked +1.
        absent: flat indices of the values marked -1.
        content: `Manifest.content` of the maps that it was made from.
        rows: N.
        dim: d.
        file: the flat file, its name relative to the folder of the warm set.
        seconds: that it took to compute.
        last_used_ns: when it was last used, ns since 1970: the sidecar's modification time.
    """

    key: str
    name: str
    present: tuple[int, ...]
    absent: tuple[int, ...]
    content: str
    rows: int
    dim: int
    file: FileEntry
    seconds: float
    last_used_ns: int


def write_entry(entry: WarmEntry) -> bytes:
    """The content of a sidecar, with a hash of itself."""
    body = {"format": _FORMAT} | asdict(entry)
    del body["last_used_ns"]
    return json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode()


def read_entry(path: Path) -> WarmEntry | None:
    """Read a sidecar; None if it is not there, damaged, or of another format."""
    try:
        text, used = path.read_bytes(), path.stat().st_mtime_ns
        body = json.loads(text)
        checksum = body.pop("checksum")
        if checksum != _checksum(body) or body.pop("format") != _FORMAT:
            return None
        file = FileEntry.from_json(body.pop("file"))
        entry = WarmEntry(
            **body
            | {"present": tuple(body["present"]), "absent": tuple(body["absent"])}
            | {"file": file, "last_used_ns": used}
        )
        return entry if _is_sound(entry, path) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_sound(entry: WarmEntry, path: Path) -> bool:
    # A name that follows from key and hash cannot lead out of the folder.
    numbers = (*entry.present, *entry.absent, entry.rows, entry.dim, entry.file.size)
    return (
        _KEY.fullmatch(entry.key) is not None
        and path.name == f"{entry.key}.json"
        and _SHA256.fullmatch(entry.file.sha256) is not None
        and entry.file.name == f"{entry.key}-{entry.file.sha256[:12]}.faiss"
        and all(type(number) is int and number >= 0 for number in numbers)
        and isinstance(entry.name, str)
        and isinstance(entry.seconds, int | float)
    )


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
