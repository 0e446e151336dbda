"""The desk: threads that work, and no more taken on than they will soon come to.

Work is admitted by the time that it would wait: what is taken and not done, by the moving means of
each kind of work, over the threads. So under a flood as much is answered as without, and the rest
is told at once when to come again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.problems import busy
from service.telemetry import WAITING

_FIRST = 0.05  # seconds that work of a kind is expected to take before any was done
_RECENT = 0.1  # weight of the last in the moving mean

Done = TypeVar("Done")


class Desk:
    """Threads that do work; of one event loop.

    Args:
        threads: how many.
        patience: seconds that work may be expected to wait; twice as long, and it is not begun.
    """

    def __init__(self, threads: int, patience: float = 1.5) -> None:
        self._pool = ThreadPoolExecutor(threads, "desk")
        self._threads, self._patience = threads, patience
        self._ahead = 0.0  # seconds of work that is taken and not done
        self._means: dict[str, float] = {}

    def admit(self) -> None:
        """Raise a 503 `Refusal` if work would wait too long."""
        wait = self._ahead / self._threads
        if wait > self._patience:
            raise busy(wait)

    async def do(self, kind: str, call: Callable[[], Done]) -> Done:
        """What a call returns, made in a thread; raises as `admit` does, and as the call.

        One that is cancelled before it began is not made."""
        self.admit()
        expected = self._means.get(kind, _FIRST)
        late = time.monotonic() + 2 * self._patience
        loop = asyncio.get_running_loop()

        def timed() -> Done:
            start = time.monotonic()
            if start > late:
                raise busy(self._patience)
            try:
                return call()
            finally:
                loop.call_soon_threadsafe(self._learn, kind, time.monotonic() - start)

        future = self._pool.submit(timed)
        self._ahead += expected
        WAITING.inc()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release, expected))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the work that began end, and forget the rest."""
        self._pool.shutdown(cancel_futures=True)

    def _learn(self, kind: str, seconds: float) -> None:
        mean = self._means.get(kind, seconds)
        self._means[kind] = mean + _RECENT * (seconds - mean)

    def _release(self, expected: float) -> None:
        self._ahead = max(0.0, self._ahead - expected)
        WAITING.dec()
