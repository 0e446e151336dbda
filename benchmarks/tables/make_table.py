"""One command a table: measure what is missing, put together, write, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import Bench, Result, bench_command
from benchmarks.tables.measure import Runs
from benchmarks.tables.options import Setting, setting_options
from benchmarks.tables.result import markdown, table_result


def table_command(name: str, rows_file: Path, help: str) -> click.Command:
    """A command that makes a table of the rows of a file, or of another one that it is given."""

    @bench_command(name, markdown, work="runs/tables")
    @setting_options
    @click.option(
        "--rows-file",
        type=click.Path(path_type=Path),
        default=rows_file,
        show_default=f"benchmarks/tables/{rows_file.name}",
        help="Another file of rows.",
    )
    def command(bench: Bench, setting: Setting, rows_file: Path) -> Iterator[Result]:
        runs = Runs.of(rows_file, setting, bench)
        runs.measure()
        stem = f"{name}-{runs.dataset.name}-{setting.backbone}{suffix(rows_file, setting)}"
        yield stem, table_result(name, runs)

    def suffix(other: Path, setting: Setting) -> str:
        """What tells the files of other rows or of a trial from those of the table."""
        own = other.resolve() == rows_file.resolve()
        trial = None if setting.epochs is None else f"{setting.epochs}-epochs"
        return "".join(f"-{part}" for part in (None if own else other.stem, trial) if part)

    command.help = f"""{help}

    Interrupted, the same command goes on where it stopped; run again, it makes only what is
    missing or depends on something that changed: options, data, weights or code. Rows that are
    chosen with --rows join those that were measured before in the same --work.
    """
    return command
