"""A build's progress as bars with rate and time left, on standard error."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

_LINE_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} images/s" if speed else "")


class BuildProgress:
    """A `Progress` of the indexer that draws bars; plain lines now and then without a terminal.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=120,
        )
        self._task: TaskID | None = None
        self._stage, self._total, self._done = "", 0, 0
        self._started = self._told = 0.0

    def __enter__(self) -> BuildProgress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int) -> None:
        """Begin a bar."""
        self._task = self._bars.add_task(stage, total=total)
        self._stage, self._total, self._done = stage, total, 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int) -> None:
        """Move the bar."""
        self._done += count
        if self._task is not None:
            self._bars.advance(self._task, count)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told > _LINE_EVERY:
            self._told = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else 0
            self.say(
                f"{self._stage}: {self._done:,} of {self._total:,}, {rate:.1f} images/s, "
                f"{left:.0f} s left"
            )

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(message, markup=False, soft_wrap=True)
