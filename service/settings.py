"""What is served, and how: told to every worker."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

SETTINGS = "RETRIEVE_SERVE"
"""Environment variable through which workers are told their settings."""


@dataclass(frozen=True)
class Settings:
    """What is served, and how.

    Args:
        index: the folder, or the URL of a database.
        shared: folder that the workers share, gone when the service ends.
        workers: processes.
        most_bytes: of a body.
        token: of those who may change images; empty: nobody may.
        root: the gallery's folder, if it has moved.
    """

    index: str
    shared: str
    workers: int = 1
    most_bytes: int = 20 * 2**20
    token: str = ""
    device: str = "cpu"
    root: str | None = None


def shared_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that workers share; in memory where the machine has such."""
    memory = Path("/dev/shm")
    there = str(memory) if os.access(memory, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="retrieve-serve-", dir=there)
