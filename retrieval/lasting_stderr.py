"""A standard error that may be closed while a command works: what is said then is lost, no more."""

from __future__ import annotations

import io
import os
import sys

_NUMBER = 2  # of standard error


class _Lasting(io.FileIO):
    """Standard error; once its reader is gone it leads nowhere."""

    def write(self, data: object) -> int:
        """Write bytes, or lose them; returns how many."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)  # type: ignore[arg-type]


def keep_stderr() -> None:
    """Let `sys.stderr` outlive its reader: `retrieve add ... 2>&1 | head -1` still adds."""
    stream = sys.stderr
    if not isinstance(stream, io.TextIOWrapper):
        return  # closed, or a test's
    try:
        if stream.fileno() != _NUMBER:
            return
    except (OSError, ValueError):
        return
    stream.flush()
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Lasting(_NUMBER, "w", closefd=False)),
        stream.encoding,
        stream.errors,
        line_buffering=True,
        write_through=True,
    )
