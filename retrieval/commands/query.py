"""`retrieve query`: a picture and named attributes in, the garments that fit out."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from retrieval.console import print_json, print_table, stderr, stdout
from retrieval.filters import parse_filters
from retrieval.hits import Hit, QueryResult, RequestedValue
from retrieval.index_folder import only_index
from retrieval.names import split_names
from retrieval.printable import printable
from retrieval.query_vector import KEEP
from training.errors import DataError, UsageError


@click.command("query")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--attrs", multiple=True, metavar="A,B", help="Values that hits should have.")
@click.option("--without", multiple=True, metavar="C,D", help="Values that hits should not have.")
@click.option(
    "--like", multiple=True, metavar="ATTRIBUTE", help="Attributes to compare by, such as colour."
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1),
    metavar="0..1",
    help="The dial: how much likeness is kept against having the named values; 0 asks for these "
    f"alone, 1 for likeness alone [default: {KEEP}].",
)
@click.option(
    "--where",
    multiple=True,
    metavar="NAME=VALUE",
    help="Search only images that pass: colour=red by known labels; given again for one name, "
    "either will do. colour!=red: a label of colour is known, and it is not red. Columns that are "
    "no attributes take = and !=, those of numbers also price<50, price>=10.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, help="Pass over so many of the best hits."
)
@click.option(
    "--min-score", type=click.FloatRange(0, 1), default=0.0, help="Only hits of at least this."
)
@click.option("--one-per-item", is_flag=True, help="Of each item only its best image.")
@click.option(
    "--include-query",
    is_flag=True,
    help="Let IMAGE itself and byte-equal copies of it be hits.",
)
@click.option(
    "--trust-labels",
    is_flag=True,
    help="Let known gallery labels settle whether a value is there, before predictions.",
)
@click.option(
    "--exact", is_flag=True, help="Score every image, also where the index is approximate."
)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    help="Folder of the index [default: the one in indexes/].",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="PNG", help="Write a contact sheet."
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Draw where the model looked, in the picture and in the hits.",
)
def command(
    image: Path,
    attrs: tuple[str, ...],
    without: tuple[str, ...],
    like: tuple[str, ...],
    keep: float | None,
    where: tuple[str, ...],
    top_k: int,
    offset: int,
    min_score: float,
    one_per_item: bool,
    include_query: bool,
    trust_labels: bool,
    exact: bool,
    index: Path | None,
    device: str,
    as_json: bool,
    sheet: Path | None,
    explain: Path | None,
) -> int:
    """Find the gallery images that are like IMAGE and have the named values.

    \b
    retrieve query img.jpg --attrs v-neckline,floral
    retrieve query img.jpg --attrs floral --without striped --where category=dress
    retrieve query img.jpg --like sleeve-length --where "price<50"

    Scores are 0..1. Without --attrs and --like, likeness as a whole. Names are matched whatever
    their case, spaces, dashes and underscores; write attribute:value where a value name occurs in
    two attributes.
    """
    present, absent = split_names("--attrs", attrs), split_names("--without", without)
    types = split_names("--like", like)
    filters = parse_filters(where)
    folder = only_index("--index") if index is None else index
    if not os.path.isfile(image):
        raise DataError(f"query image {image} does not exist or is not a file")
    if sheet is not None:
        from retrieval.sheet import check_sheet_name, save_sheet

        check_sheet_name(sheet, image)
    if explain is not None:
        from retrieval.explanation import conditions_of, save_explanation
        from retrieval.sheet import check_sheet_name

        check_sheet_name(explain, image, "explanation")
        if sheet is not None and os.path.realpath(sheet) == os.path.realpath(explain):
            raise UsageError(f"--sheet and --explain name one file, {explain}; name two")

    from retrieval.engine import Engine

    engine = Engine.open(folder, device)
    for remark in engine.store.remarks:
        stderr.print(printable(remark), markup=False, soft_wrap=True)
    result = engine.query(
        image,
        present,
        absent,
        types,
        filters,
        top_k,
        keep,
        offset,
        min_score,
        one_per_item,
        include_query,
        trust_labels,
        exact,
    )
    if sheet is not None:
        save_sheet(result, image, sheet)
        stderr.print(f"contact sheet written to {sheet}", markup=False, soft_wrap=True)
    if explain is not None:
        asked = conditions_of(engine.schema, present, absent, types)
        save_explanation(engine, result, image, asked, explain)
        stderr.print(f"explanation written to {explain}", markup=False, soft_wrap=True)
    if result.searched == 0:
        stderr.print(
            f"no gallery image passes --where {', '.join(where)}; nothing was searched",
            markup=False,
        )
    if as_json:
        print_json(result.to_json())
    else:
        print_table(_table(result))
        if result.left_out:
            copies = "copy" if result.left_out == 1 else "copies"
            stdout.print(
                f"left out {result.left_out} {copies} of the query picture (--include-query)",
                soft_wrap=True,
            )
    return 0


def _table(result: QueryResult) -> Table:
    searched = f"{result.searched:,} of {result.gallery:,} images"
    title = Text(f"{printable(result.condition)}   ({searched})", style="bold")
    table = Table(title=title, title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("path", overflow="fold", ratio=2)
    if result.requested:
        table.add_column("requested", overflow="fold")
    table.add_column("known labels", overflow="fold")
    table.add_column("predicted", overflow="fold")
    payload = any(hit.payload for hit in result)
    if payload:
        table.add_column("other columns", overflow="fold")
    for hit in result:
        cells = [Text(str(hit.rank)), Text(f"{hit.score:.3f}"), Text(_shown(hit.path))]
        if result.requested:
            cells.append(Text("\n").join(map(_mark, hit.requested)))
        # As Text: labels and paths may look like rich's markup.
        cells += [Text(_known(hit)), Text(_guesses(hit))]
        if payload:
            cells.append(Text(_columns(hit)))
        table.add_row(*cells)
    return table


def _shown(path: Path) -> str:
    """The path, relative to the working folder if it lies below it."""
    here = Path.cwd()
    return printable(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _known(hit: Hit) -> str:
    return printable(", ".join("|".join(values) for values in hit.known.values())) or "-"


def _guesses(hit: Hit) -> str:
    guesses = [
        f"{value} {probability:.0%}"
        for attribute, (value, probability) in hit.predicted.items()
        if attribute not in hit.known
    ]
    return printable(", ".join(guesses)) or "-"


def _columns(hit: Hit) -> str:
    return printable(", ".join(f"{name}={text}" for name, text in hit.payload.items())) or "-"


def _mark(value: RequestedValue) -> Text:
    there = value.verdict in ("present", "predicted")
    colour = "green" if there == value.wanted else "red"
    known = f"{value.verdict}, " if value.verdict in ("present", "absent") else ""
    return Text(f"{printable(value.name)} {known}{value.probability:.0%}", colour)
