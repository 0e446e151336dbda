"""`retrieve names`: the attributes and values that an index can be asked for."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from retrieval.console import print_json, print_table, printable
from retrieval.options import JSON, PATH, only_index


@click.command("names")
@click.argument("index", required=False, type=PATH)
@JSON
def command(index: Path | None, as_json: bool) -> int:
    """Print attributes, values and other columns of INDEX [default: the one in indexes/].

    `labelled` counts the images that are known to have a value, `seen` those that the model takes
    to have it: the likeliest of an attribute, or of one with several values all above one half.
    """
    import numpy as np

    from indexer.store.store import open_store

    store = open_store(index or only_index("INDEX"))
    schema = store.schema
    labelled = store.labelled()
    seen = np.zeros(schema.size, dtype=np.int64)
    for block in store.blocks():
        chances = store.layout.chances(block)
        for number, attribute in enumerate(schema.attributes):
            own = schema.slice_of(number)
            if attribute.multi:
                seen[own] += (chances[:, own] > 0.5).sum(axis=0)
            elif attribute.values:
                best = chances[:, own].argmax(axis=1)
                seen[own] += np.bincount(best, minlength=len(attribute.values))
    rows = [
        {
            "attribute": schema.attributes[int(schema.attribute_of[flat])].name,
            "value": name,
            "labelled": int(labelled[flat]),
            "seen": int(seen[flat]),
        }
        for flat, name in enumerate(schema.value_names)
    ]
    if as_json:
        print_json({"images": len(store), "values": rows, "columns": list(store.payload)})
        return 0
    table = Table(*rows[0] if rows else ("attribute",), title=f"{len(store):,} images")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row.values()))
    print_table(table)
    if store.payload:
        click.echo(f"other columns: {', '.join(map(printable, store.payload))}")
    return 0
