"""`retrieve query`: a picture and named attributes in, the garments that fit out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from rich.table import Table
from rich.text import Text

from retrieval.console import print_json, print_table, printable, say, stdout
from retrieval.options import COUNT, DEVICE, JSON, PATH, SHARE, filled, only_index, split_names
from retrieval.query_vector import KEEP
from training.errors import DataError, UsageError
from training.schema import full_name

if TYPE_CHECKING:
    from retrieval.hits import Hit, QueryResult
    from retrieval.words import Understood
    from training.schema import Schema

_Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve query` is told; numbers and flags are those of `Request`."""

    image: Annotated[Path, click.argument("image", type=PATH)]
    attrs: Annotated[_Names, "Values that hits should have: A,B."] = ()
    without: Annotated[_Names, "Values that hits should not have: C,D."] = ()
    like: Annotated[_Names, "Attributes to compare by, such as colour."] = ()
    text: Annotated[
        str | None, "The same in words: 'like this but red, no stripes'; told how it is understood."
    ] = None
    vocabulary: Annotated[Path | None, "TOML file of more words for --text."] = None
    keep: Annotated[
        float | None,
        SHARE,
        "The dial: how much likeness is kept against having the named values; 0 asks for these "
        f"alone, 1 for likeness alone [default: {KEEP}].",
    ] = None
    where: Annotated[
        _Names,
        "Search only images that pass: colour=red by known labels; given again for one name, "
        "either will do. colour!=red: a label of colour is known, and it is not red. Columns "
        "that are no attributes take = and !=, those of numbers also price<50, price>=10.",
    ] = ()
    top_k: Annotated[int, COUNT, "Hits at most."] = 10
    offset: Annotated[int, click.IntRange(min=0), "Pass over so many of the best hits."] = 0
    min_score: Annotated[float, SHARE, "Only hits of at least this."] = 0.0
    one_per_item: Annotated[bool, "Of each item only its best image."] = False
    include_query: Annotated[bool, "Let IMAGE and byte-equal copies of it be hits."] = False
    trust_labels: Annotated[bool, "Let known labels settle whether a value is there."] = False
    exact: Annotated[bool, "Score every image, also where the index is approximate."] = False
    root: Annotated[Path | None, "The gallery's folder, if it has moved."] = None
    index: Annotated[
        str | None, "Folder of the index, or URL of a database [default: the one in indexes/]."
    ] = None
    device: Annotated[str, DEVICE]
    as_json: Annotated[bool, JSON]
    sheet: Annotated[Path | None, "Write a contact sheet, such as hits.png."] = None
    explain: Annotated[Path | None, "Draw where the model looked, in IMAGE and the hits."] = None


@click.command("query")
@filled(Options)
def command(options: Options) -> int:
    """Find the gallery images that are like IMAGE and have the named values.

    \b
    retrieve query img.jpg --attrs v-neckline,floral
    retrieve query img.jpg --attrs floral --without striped --where category=dress
    retrieve query img.jpg --like sleeve-length --where "price<50"
    retrieve query img.jpg --text "like this but red, long-sleeved, no stripes"

    Scores are 0..1. Without --attrs and --like, likeness as a whole. Names are matched whatever
    their case, spaces, dashes and underscores; write attribute:value where a value name occurs in
    two attributes.
    """
    image = options.image
    folder = options.index or only_index("--index")
    if not os.path.isfile(image):
        raise DataError(f"query image {image} does not exist or is not a file")
    from retrieval.request import Request, parse_filters

    own = {f.name for f in fields(Request)} & set(vars(options)) - {"image", "like", "where"}
    numbers: dict[str, Any] = {name: getattr(options, name) for name in own}
    filters = parse_filters(options.where)
    listed = [("--attrs", options.attrs), ("--without", options.without), ("--like", options.like)]
    for option, given in listed:
        split_names(option, given)  # says what is wrong with them before anything is opened
    pictures = {"contact sheet": options.sheet, "explanation": options.explain}
    asked = {what: out for what, out in pictures.items() if out is not None}
    if asked:
        from retrieval.sheet import check_sheet_name

        for what, out in asked.items():
            check_sheet_name(out, image, what)
        if len(set(map(os.path.realpath, asked.values()))) < len(asked):
            raise UsageError(f"--sheet and --explain name one file, {options.explain}; name two")

    from retrieval.engine import Engine

    engine = Engine.open(folder, options.device, root=options.root)
    present, absent, like = (
        split_names(option, given, engine.schema.knows) for option, given in listed
    )
    if options.text is not None:
        said = _understood(options.text, options.vocabulary, engine.schema)
        value, attribute = engine.schema.value, engine.schema.attribute
        present = _united(present, said.present, value)
        absent = _united(absent, said.absent, value)
        like = _united(like, said.like, attribute)
    request = Request(image, present, absent, like, filters, **numbers)
    for remark in engine.held.remarks:
        say(remark)
    result = engine.query(request)
    for what, out in asked.items():
        from retrieval.sheet import contact_sheet, save_explanation, write_picture

        if what == "explanation":
            save_explanation(engine, request, result, out)
        else:
            write_picture(contact_sheet(result, image), out, what)
        say(f"{what} written to {out}")
    if result.searched == 0:
        say(f"no gallery image passes --where {', '.join(options.where)}; nothing was searched")
    if options.as_json:
        print_json(result.to_json())
        return 0
    print_table(_table(result))
    if result.left_out:
        copies = "copy" if result.left_out == 1 else "copies"
        say(f"left out {result.left_out} {copies} of the query picture (--include-query)", stdout)
    return 0


def _understood(text: str, vocabulary: Path | None, schema: Schema) -> Understood:
    from retrieval.vocabulary import read_vocabulary
    from retrieval.words import Words

    understood = Words(schema, read_vocabulary(vocabulary), slips=True).understand(text)
    say(f"--text is understood as: {understood}")
    return understood


def _united(names: list[str], more: Iterable[str], find: Callable[[str], int]) -> list[str]:
    """Names and those of more that mean none of them."""
    numbers = set(map(find, names))
    return names + [name for name in more if find(name) not in numbers]


def _table(result: QueryResult) -> Table:
    searched = f"{result.searched:,} of {result.gallery:,} images"
    title = Text(f"{printable(result.condition)}   ({searched})", style="bold")
    table = Table(title=title, title_justify="left")
    for figure in ("rank", "score"):
        table.add_column(figure, justify="right")
    table.add_column("path", overflow="fold", ratio=2)
    columns = ["requested"] if result.requested else []
    columns += ["known labels", "predicted"]
    columns += ["other columns"] if any(hit.payload for hit in result) else []
    for name in columns:
        table.add_column(name, overflow="fold")
    here = Path.cwd()
    for hit in result:
        path = hit.path.relative_to(here) if hit.path.is_relative_to(here) else hit.path
        cells = _cells(hit)
        # As Text: labels and paths may look like rich's markup.
        first = map(Text, (str(hit.rank), f"{hit.score:.3f}", printable(str(path))))
        table.add_row(*first, *(cells[name] for name in columns))
    return table


def _cells(hit: Hit) -> dict[str, Text]:
    marks = []
    for value in hit.requested:
        known = f"{value.verdict}, " if value.verdict in ("present", "absent") else ""
        text = f"{printable(value.name)} {known}{value.probability:.0%}"
        marks.append(Text(text, "green" if value.fits else "red"))
    texts = {
        "known labels": [
            "|".join(full_name(attribute, value) for value in values)
            for attribute, values in hit.known.items()
        ],
        "predicted": [
            f"{full_name(attribute, value)} {probability:.0%}"
            for attribute, (value, probability) in hit.predicted.items()
            if attribute not in hit.known
        ],
        "other columns": [f"{name}={text}" for name, text in hit.payload.items()],
    }
    cells = {name: Text(printable(", ".join(parts)) or "-") for name, parts in texts.items()}
    return cells | {"requested": Text("\n").join(marks)}
