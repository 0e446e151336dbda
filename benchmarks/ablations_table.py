"""What each part of M2Fashion and of its recipe is worth: the model without it.

    retrieve bench ablations --dataset data/fashion-products --item-column name --weights FILE

Rows: `benchmarks/tables/ablations.toml`, a line each. Shares its runs with `retrieve bench map`
where both are told the same items. `retrieve bench counterfactual --variant ROW` asks the same of
the rendered wardrobe.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.tables.options import Options, table_options

ROWS = Path(__file__).parent / "tables" / "ablations.toml"
WHOLE = "m2fashion"
"""The row that lacks nothing."""


@click.command("ablations")
@table_options
def command(options: Options) -> int:
    """Train and measure M2Fashion without each of its parts.

    Rows that are chosen with --rows join those that were measured before in the same --work.

    Resumes and skips as `retrieve bench map` does, and shares its runs.
    """
    from benchmarks.tables.ablations_markdown import ablations_markdown
    from benchmarks.tables.chart import draw_chart
    from benchmarks.tables.make_table import make_table

    return make_table("ablations", ROWS, options, ablations_markdown, draw_chart)
