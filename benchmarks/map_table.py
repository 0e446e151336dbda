"""Attribute-specific MAP of M2Fashion and its rivals on the test split, side by side.

    retrieve bench map --dataset data/fashion-products --backbone resnet18 --weights FILE

Rows: `benchmarks/tables/map.toml`. Trains every row with every seed (resumable; what is done is
skipped) and writes `map-DATASET-BACKBONE.json`, `.md` and `.png` to `benchmarks/results/`; other
rows and trials have longer names.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.tables.options import Options, table_options

ROWS = Path(__file__).parent / "tables" / "map.toml"


@click.command("map")
@table_options
def command(options: Options) -> int:
    """Train and measure M2Fashion and its rivals side by side.

    Interrupted, the same command goes on where it stopped; run again, it makes only what is
    missing or depends on something that changed: options, data, weights or code.
    """
    from benchmarks.tables.chart import draw_chart
    from benchmarks.tables.make_table import make_table
    from benchmarks.tables.map_markdown import map_markdown

    return make_table("map", ROWS, options, map_markdown, draw_chart)
