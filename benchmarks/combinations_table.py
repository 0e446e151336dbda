"""Searching by two or three values at once, model by model: `same` and `but`.

    retrieve bench combinations --dataset data/fashion-products --backbone resnet18 --weights FILE

The rows and the runs are those of `retrieve bench map`.
"""

from __future__ import annotations

import click

from benchmarks.map_table import ROWS
from benchmarks.tables.options import Options, table_options


@click.command("combinations")
@table_options
def command(options: Options) -> int:
    """Measure M2Fashion and its rivals at searching by several values at once.

    Resumes and skips as `retrieve bench map` does, and shares its rows and runs.
    """
    from benchmarks.tables.combinations_markdown import combinations_markdown
    from benchmarks.tables.make_table import make_table

    return make_table("combinations", ROWS, options, combinations_markdown, None)
