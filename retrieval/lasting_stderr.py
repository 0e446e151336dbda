"""A standard error that may be closed while a command works: what is said then is lost, no more."""

from __future__ import annotations

import io
import os
import sys

_NUMBER = 2  # of standard error


class _Lasting(io.FileIO):
    """Standard error; once its reader is gone it leads nowhere."""

    def write(self, data: object) -> int:
        """Write all of some bytes, or lose them; returns how many."""
        rest = memoryview(data)  # type: ignore[arg-type]
        while rest:
            try:
                rest = rest[super().write(rest) or 0 :]
            except OSError:  # or its disk is full, or its terminal lost
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
        return len(memoryview(data))  # type: ignore[arg-type]


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
    # Without a buffer, as under `python -u`: a signal's handler may write while a write goes on,
    # which a buffer refuses.
    sys.stderr = io.TextIOWrapper(
        _Lasting(_NUMBER, "w", closefd=False),
        stream.encoding,
        stream.errors,
        line_buffering=True,
        write_through=True,
    )
