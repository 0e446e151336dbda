"""The images that a build could not read: written down, and a reason to stop if they are many."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from indexer.manifest import Manifest, Reject
from training.errors import DataError
from training.files import write_file

REJECTS_NAME = "rejects.jsonl"


def settle_rejects(out: Path, manifest: Manifest, listed: int, max_reject_rate: float) -> None:
    """Write `rejects.jsonl`; raise DataError if they are too many."""
    rejects = manifest.rejects
    lines = [json.dumps(asdict(reject)) + "\n" for reject in rejects]
    write_file(out / REJECTS_NAME, "".join(lines).encode())
    if not rejects:
        return
    first = "; ".join(_shown(reject) for reject in rejects[:3])
    if len(rejects) > max_reject_rate * listed or not manifest.rows:
        raise DataError(
            f"{len(rejects):,} of {listed:,} images could not be read, more than "
            f"{max_reject_rate:.0%} allowed by --max-reject-rate: {first}; all of them are in "
            f"{out / REJECTS_NAME}"
        )


def _shown(reject: Reject) -> str:
    path = reject.path.encode("utf-8", "backslashreplace").decode()
    return f"{path} ({reject.reason})"
