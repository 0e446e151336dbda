"""One command a table: measure what is missing, put together, write, print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from benchmarks.common import Data, Result, bench_command
from benchmarks.tables.measure import Runs
from benchmarks.tables.options import Setting
from benchmarks.tables.result import markdown, table_result


@dataclass(frozen=True, kw_only=True)
class Options(Setting):
    """Of a table."""

    rows_file: Annotated[Path | None, "Another file of rows."] = None


@dataclass(frozen=True)
class Layout:
    """What a table measures on its runs, and how it is put together and written."""

    runs: type[Runs] = Runs
    result: Callable[[str, Runs], Data] = table_result
    markdown: Callable[[Data], str] = markdown


def table_command(name: str, own: Path, help: str, layout: Layout | None = None) -> click.Command:
    """A command that makes a table of the rows of a file, or of another one that it is given."""
    how = layout or Layout()

    @bench_command(name, how.markdown, Options)
    def command(options: Options) -> Iterator[Result]:
        file = options.rows_file or own
        runs = how.runs.of(file, options)
        runs.measure()
        # What tells the files of other rows or of a trial from those of the table.
        other = None if file.resolve() == own.resolve() else file.stem
        trial = None if options.epochs is None else f"{options.epochs}-epochs"
        parts = (name, runs.dataset.name, options.file_part, other, trial)
        yield "-".join(filter(None, parts)), how.result(name, runs)

    command.help = f"""{help}

    Interrupted, the same command goes on where it stopped; run again, it makes only what is
    missing or depends on something that changed: options, data, weights or code. Rows that are
    chosen with --rows join those that were measured before in the same --work.
    """
    return command
