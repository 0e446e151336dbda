"""The most memory that a process and its children held, beyond what it held before.

Two figures, from /proc: anonymous memory, which the kernel cannot take back, and all resident
memory, which also counts pages of mapped files that lie in the page cache anyway.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_PERIOD = 0.02  # seconds between two looks


class PeakMemory:
    """Watch this process and its children within a `with` block.

    Elsewhere than on Linux both figures stay 0.
    """

    def __init__(self) -> None:
        self.anonymous = 0
        """Most bytes of anonymous memory beyond what there was at the start."""
        self.resident = 0
        """Likewise of this process' resident memory and its children's anonymous memory."""
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._start = (0, 0)

    def __enter__(self) -> PeakMemory:
        self._start = _held(os.getpid())
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._watcher.join()

    def _watch(self) -> None:
        while True:
            self._look()
            if self._end.wait(_PERIOD):
                self._look()
                return

    def _look(self) -> None:
        anonymous, resident = _held(os.getpid())
        # Of the children the libraries are left out, which all of them share with this process.
        children = sum(_held(child)[0] for child in _children(os.getpid()))
        self.anonymous = max(self.anonymous, anonymous + children - self._start[0])
        self.resident = max(self.resident, resident + children - self._start[1])


def _held(process: int) -> tuple[int, int]:
    """Bytes of anonymous and of all resident memory of a process; zeros if it has ended."""
    try:
        lines = (_PROC / str(process) / "status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.partition(":")[0]: line.split()[1:2] for line in lines}
    sizes = [int((found.get(name) or ["0"])[0]) * 1024 for name in ("RssAnon", "VmRSS")]
    return sizes[0], sizes[1]


def _children(process: int) -> list[int]:
    """Processes that descend from one."""
    out = []
    for task in (_PROC / str(process) / "task").glob("*/children"):
        try:
            own = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in own:
            out += [child, *_children(child)]
    return out
