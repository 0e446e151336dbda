"""Worker processes that Ctrl-C does not reach: who started them decides how to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes in the block that SIGINT never reaches, not even while they import.

    They inherit that this thread does not take it; one that comes meanwhile is taken afterwards.
    """
    resource_tracker.ensure_running()  # started in the block, it would take the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
