"""`retrieve query`: a picture and named attributes in, the garments that fit out."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from retrieval.console import print_json, stderr, stdout
from retrieval.hits import QueryResult, RequestedValue
from training.errors import DataError, UsageError


@click.command("query")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--attrs", metavar="A,B", help="Values that hits should have.")
@click.option("--without", metavar="C,D", help="Values that hits should not have.")
@click.option("--like", metavar="ATTRIBUTE", help="Attributes to compare by, such as colour.")
@click.option(
    "--where",
    multiple=True,
    metavar="ATTRIBUTE=VALUE",
    help="Search only images whose known label is this; may be repeated.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    help="Folder of the index [default: the one in indexes/].",
)
@click.option(
    "--trust-labels",
    is_flag=True,
    help="Let known gallery labels settle whether a value is there, before predictions.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="PNG", help="Write a contact sheet."
)
def command(
    image: Path,
    attrs: str | None,
    without: str | None,
    like: str | None,
    where: tuple[str, ...],
    top_k: int,
    index: Path | None,
    trust_labels: bool,
    device: str,
    as_json: bool,
    sheet: Path | None,
) -> int:
    """Find the gallery images that are like IMAGE and have the named values.

    \b
    retrieve query img.jpg --attrs v-neckline,floral
    retrieve query img.jpg --attrs floral --without striped --where category=dress
    retrieve query img.jpg --like sleeve-length

    Without --attrs and --like, likeness as a whole. Names are matched whatever their case, spaces,
    dashes and underscores; write attribute:value where a value name occurs in two attributes.
    """
    present, absent, types = _names(attrs), _names(without), _names(like)
    conditions = _filters(where)
    folder = _only_index() if index is None else index
    if not image.is_file():
        raise DataError(f"query image {image} does not exist or is not a file")

    from retrieval.engine import Engine

    engine = Engine.open(folder, device)
    result = engine.query(image, present, absent, types, conditions, top_k, trust_labels)
    if sheet is not None:
        from retrieval.sheet import save_sheet

        save_sheet(result, image, sheet)
        stderr.print(f"contact sheet written to {sheet}", markup=False, soft_wrap=True)
    if result.searched == 0:
        stderr.print(
            f"no gallery image is known to have {', '.join(where)}; nothing was searched",
            markup=False,
        )
    if as_json:
        print_json(result.to_json())
    else:
        stdout.print(_table(result))
    return 0


def _names(text: str | None) -> list[str]:
    """Names of a comma-separated option.

    Raises:
        UsageError: if one of them is empty.
    """
    if text is None:
        return []
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{text!r} holds an empty name; write names separated by single commas")
    return names


def _filters(where: tuple[str, ...]) -> dict[str, str]:
    filters: dict[str, str] = {}
    for text in where:
        attribute, equals, value = text.partition("=")
        if not (equals and attribute.strip() and value.strip()):
            raise UsageError(f"--where {text!r} is not of the form attribute=value")
        if attribute.strip() in filters:
            raise UsageError(f"--where names {attribute.strip()!r} twice")
        filters[attribute.strip()] = value.strip()
    return filters


def _only_index() -> Path:
    found = sorted(path.parent for path in Path("indexes").glob("*/manifest.json"))
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(map(str, found))
        raise UsageError(f"{len(found)} indexes in indexes/; choose with --index: {choices}")
    raise UsageError(
        "no index in indexes/; build one with `retrieve build-index --dataset D`, "
        "or name one with --index"
    )


def _table(result: QueryResult) -> Table:
    searched = f"{result.searched:,} of {result.gallery:,} images"
    table = Table(
        title=f"{escape(result.condition)}   ({searched})", title_justify="left", title_style="bold"
    )
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("path", overflow="fold")
    table.add_column("requested")
    table.add_column("known labels", overflow="fold")
    table.add_column("predicted", overflow="fold")
    for hit in result:
        known = ", ".join("|".join(values) for values in hit.known.values())
        guesses = [
            f"{value} {probability:.0%}"
            for attribute, (value, probability) in hit.predicted.items()
            if attribute not in hit.known
        ]
        table.add_row(
            str(hit.rank),
            f"{hit.score:.3f}",
            escape(str(hit.path).encode("utf-8", "backslashreplace").decode()),
            "\n".join(map(_mark, hit.requested)),
            escape(known) or "-",
            escape(", ".join(guesses)) or "-",
        )
    return table


def _mark(value: RequestedValue) -> str:
    there = value.verdict in ("present", "predicted")
    colour = "green" if there == value.wanted else "red"
    name = escape(value.name)
    if value.verdict in ("present", "absent"):
        return f"[{colour}]{name} {value.verdict}[/]"
    return f"[{colour}]{name} {value.probability:.0%}[/]"
