"""What is shown: results on standard output; bars and remarks on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import TaskID

stderr = Console(stderr=True, highlight=False, emoji=False)
stdout = Console(highlight=False, emoji=False)

_NO_EDGE = 1 << 16  # columns
_NARROWEST = 60  # columns; in fewer, rich leaves cells out
_LINE_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


def printable(text: str) -> str:
    r"""Text of unknown origin in one line, control characters and surrogates escaped: `a\nb`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(text: str) -> str:
    """The text as rich shows it unchanged: printable, and nothing in it taken for markup."""
    return escape(printable(text))


def say(text: str, console: Console = stderr) -> None:
    """Write one line, whatever is in it, however long it is."""
    console.print(printable(text), markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Write a table to standard output: on a terminal, or where `COLUMNS` is set, wrapped to fit.

    A pipe or a file has no edge to wrap at; a wrapped path could not be found or copied.
    """
    fitted = stdout.is_terminal or "COLUMNS" in os.environ
    width = max(stdout.width, _NARROWEST) if fitted else _NO_EDGE
    Console(highlight=False, emoji=False, width=width).print(table)


def print_json(data: Any) -> None:
    """Write one JSON document and nothing else to standard output; NaN is not allowed."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


class Bars:
    """A bar a stage; without a terminal a line now and then. A `Progress` of the indexer.

    `unit` is what is counted; a rate is shown unless it is empty.
    """

    def __init__(self, unit: str = "images") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichBars

        self._unit = unit
        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=stderr,
            transient=True,
            disable=not stderr.is_terminal,
            speed_estimate_period=120,
        )
        self._task: TaskID | None = None
        self._stage, self._total, self._done = "", 0, 0
        self._started = self._told = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int) -> None:
        """Begin a bar in place of the one before."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(stage, total=total, rate="")
        self._stage, self._total, self._done = stage, total, 0
        self._started = self._told = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """Move the bar; a note stands behind its name."""
        self._done += count
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        shown = f"{rate:,.1f} {self._unit}/s" if self._unit else ""
        if self._task is not None:
            name = f"{self._stage}  {note}" if note else self._stage
            self._bars.update(self._task, advance=count, rate=shown, description=name)
        if self._unit and not stderr.is_terminal and now - self._told > _LINE_EVERY:
            self._told = now
            left = (self._total - self._done) / rate if rate else 0
            count_of = f"{self._done:,} of {self._total:,}"
            self.say(f"{self._stage}: {count_of}, {shown}, {left:.0f} s left")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        say(message, self._bars.console)


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over `total` images; what it gives is called with the number just done."""
    with Bars() as bars:
        bars.start(title, total)
        yield bars.advance
