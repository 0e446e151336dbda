"""`NAME=RUN` options: which checkpoint stands under which name in a table."""

from __future__ import annotations

from pathlib import Path

from training.errors import UsageError


def named_run(text: str) -> tuple[str, Path]:
    """Name and folder of a `NAME=RUN` option; raises UsageError."""
    name, equals, folder = text.partition("=")
    if not (equals and name.strip() and folder):
        raise UsageError(f"--checkpoint {text!r} is not of the form NAME=RUN")
    return name.strip(), Path(folder)
