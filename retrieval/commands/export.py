"""`retrieve export`: an index into a database that answers queries, or a Parquet file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import click

from retrieval.console import Bars, print_json, say, stdout
from retrieval.options import JSON, PATH, filled, only_index

_TO = click.option("--to", required=True, metavar="URL|FILE", help="Where to, see above.")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve export` is told."""

    index: Annotated[Path | None, click.argument("index", required=False, type=PATH)]
    to: Annotated[str, _TO]
    as_json: Annotated[bool, JSON]


@click.command("export")
@filled(Options)
def command(options: Options) -> int:
    """Write INDEX [default: the one in indexes/] into a database, or a file.

    \b
    retrieve export indexes/shop --to postgresql://user@host/db?table=shop
    retrieve export indexes/shop --to milvus://host:19530/shop
    retrieve export indexes/shop --to shop.parquet

    Databases answer `retrieve query --index URL` and `retrieve serve URL`. Again, it writes what
    changed since; who asks meanwhile sees the version before, or the new one.
    """
    from indexer.hold.export import export_index
    from retrieval.query_vector import draw_requests

    folder = options.index or only_index("INDEX")
    with Bars() as progress:
        report = export_index(folder, options.to, draw_requests, progress)
    if options.as_json:
        print_json(asdict(report))
        return 0
    what = f"{report.written:,} written, {report.removed:,} removed"
    say(
        f"{report.images:,} images: {what if report.written or report.removed else 'no change'}",
        stdout,
    )
    return 0
