"""`retrieve tag`: what a catalogue does not say of its pictures, as a model sees it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import click
import numpy as np
from rich.table import Table

from retrieval.console import Bars, plain, print_json, print_table, say, stdout
from retrieval.options import (
    DEVICE,
    JSON,
    PATH,
    SHARE,
    Encoding,
    ImageColumn,
    Separator,
    filled,
    split_names,
)
from training.datasets.columns import Told
from training.datasets.locate import folder_name
from training.errors import DataError, UsageError
from training.files import as_resource_error
from training.schema import Schema, normalise_name

if TYPE_CHECKING:
    from retrieval.tagged_table import Listing, Tags
    from retrieval.tags import Floats

See: TypeAlias = "Callable[[Sequence[str]], Floats]"
"""Paths [M] -> chances of every value [M, K], NaN where there are none."""

LEAST_SURE = 60
"""Predictions that a sheet shows."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve tag` is told."""

    folder: Annotated[Path, click.argument("folder", type=PATH)]
    checkpoint: Annotated[Path | None, "The trained model."] = None
    index: Annotated[Path | None, "Instead: what an index stores; no picture is opened."] = None
    attributes: Annotated[tuple[str, ...], "Only these of the model's attributes: A,B."] = ()
    confidence: Annotated[
        float | None,
        SHARE,
        "Fill in what has at least this chance; `retrieve evaluate` tells how right "
        "[default: 0.5, of several values the thresholds that training found].",
    ] = None
    coverage: Annotated[
        float | None, SHARE, "Add NAME_set, values that hold the true one of this share of rows."
    ] = None
    image_column: ImageColumn = None
    separator: Separator = None
    encoding: Encoding = None
    out: Annotated[Path | None, "The new table [default: FOLDER-tagged.csv, here]."] = None
    sheet: Annotated[Path | None, "Draw the least sure, such as unsure.png."] = None
    device: Annotated[str, DEVICE]
    as_json: Annotated[bool, JSON]


@click.command("tag")
@filled(Options)
def command(options: Options) -> int:
    """Fill in what the catalogue in FOLDER does not say of its pictures, in a new table.

    \b
    retrieve tag shop --checkpoint runs/shop --confidence 0.8 --sheet unsure.png
    retrieve tag photos --index indexes/photos

    Empty cells of the model's attributes are filled, and a column NAME_chance stands beside each;
    what is known stays, and helps with the rest; so do all other columns and the order of rows. An
    attribute without a column gets one; one that does not apply to a picture, where the model was
    taught of such, reads `not applicable`. Without a table the pictures below FOLDER are listed.
    Interrupted, the same command goes on where it stopped.
    """
    out = options.out or Path(f"{folder_name(options.folder)}-tagged.csv")
    if (options.checkpoint is None) == (options.index is None):
        raise UsageError("name a model with --checkpoint, or an index with --index")
    if os.path.lexists(out):
        raise UsageError(f"{out} is there already; remove it, or name another with --out")
    if options.sheet is not None:
        from retrieval.sheet import check_sheet_name

        check_sheet_name(options.sheet, None, "sheet")
    from retrieval.tagged_table import Listing, Tags, write_tagged
    from retrieval.tags import Predicted, beside_labels, company, least_chances, thresholds

    told = Told(options.image_column, separator=options.separator, encoding=options.encoding)
    listing = Listing.of(options.folder, told)
    for note in listing.table.notes:
        say(note)
    kept = out.with_name(f".{out.name}.partial")
    schema, training, see = (
        _by_index(options) if options.index else _by_model(options, listing.root, kept)
    )
    names = split_names("--attributes", options.attributes)
    wanted = [schema.attributes[schema.attribute(name)] for name in names] or schema.attributes
    coverage, rows = options.coverage, listing.lacking(wanted)
    least = None if coverage is None else least_chances(training, schema, coverage)
    chances, states = see(list(rows)), listing.states(schema)
    own = states[list(rows.values())]
    sets = None
    if least is not None:
        lacking = (schema.left_over(chances) >= least) & schema.optional
        sets = np.hstack([chances >= least[schema.attribute_of], lacking])
    chances = beside_labels(schema, company(schema, states), own, chances)
    there = np.asarray(~np.isnan(chances).any(axis=1))
    numbers = {path: n for n, path in enumerate(rows) if there[n]}
    pictures = np.array([numbers.get(path, -1) for path in listing.pictures], dtype=np.int64)
    by = thresholds(training, schema)
    predicted = replace(Predicted.of(schema, np.nan_to_num(chances), by), sets=sets)
    about = predicted, pictures, options.confidence
    tags = [Tags.of(listing, schema, attribute, *about) for attribute in wanted]
    write_tagged(out, listing, tags)
    with suppress(OSError):
        kept.unlink(missing_ok=True)
    if options.sheet is not None:
        _draw(options.sheet, listing, tags)
    _tell(out, listing, tags, int((~there).sum()), options.as_json)
    return 0


def _by_index(options: Options) -> tuple[Schema, dict[str, Any], See]:
    """The schema of an index, what its model notes of its training, and what it stores."""
    from indexer.store.store import open_store
    from training.checkpoint import load_checkpoint

    assert options.index is not None
    store = open_store(options.index)

    def see(paths: Sequence[str]) -> Floats:
        places = {path: row for row, path in enumerate(store.paths)}
        rows = np.array([places.get(path, -1) for path in paths], dtype=np.int64)
        there = rows >= 0
        if len(paths) and not there.any():
            raise DataError(
                f"none of the {len(paths):,} pictures is in the index {options.index}, whose "
                f"gallery is {store.root}"
            )
        chances = np.full((len(paths), store.schema.size), np.nan, dtype=np.float32)
        chances[there] = store.layout.chances(store.descriptors_of(rows[there]))
        return chances

    return store.schema, load_checkpoint(store.model_folder).training, see


def _by_model(options: Options, root: Path, kept: Path) -> tuple[Schema, dict[str, Any], See]:
    """The same of a checkpoint, and what it sees in pictures below `root`, resumed by `kept`."""
    from indexer.build.shards import list_hash, listed_version
    from retrieval.tags import predict
    from training.checkpoint import load_checkpoint
    from training.device import choose_device

    assert options.checkpoint is not None
    device = choose_device(options.device).device
    loaded = load_checkpoint(options.checkpoint, device)

    def see(paths: Sequence[str]) -> Floats:
        listed = list_hash(paths, [listed_version(root, path) for path in paths])
        key = hashlib.sha256(f"{loaded.hash} {listed}".encode()).digest()
        with Bars() as bars:

            def rest(done: int) -> Iterator[Floats]:
                if done:
                    bars.say(f"{done:,} of {len(paths):,} pictures are done already")
                return predict(loaded, device, root, paths[done:], bars)

            return resumed(kept, key, loaded.schema.size, rest)

    return loaded.schema, loaded.training, see


def resumed(file: Path, key: bytes, width: int, rest: Callable[[int], Iterator[Floats]]) -> Floats:
    """All rows [N, width]: those that a file holds, then what `rest` gives from that many on.

    Whatever it gives is in the file before the next is asked for. A file begins with a `key` of 32
    bytes; with another it is begun anew, and half a row at its end does not count. Raises
    ResourceError.
    """
    with as_resource_error(file):
        content = file.read_bytes() if file.is_file() else b""
        if content[:32] != key:
            content = key
            file.write_bytes(key)
        done = (len(content) - len(key)) // (4 * width)
        found = np.frombuffer(content, "<f4", done * width, len(key)).reshape(done, width)
        parts: list[Floats] = [found.astype(np.float32)]
        with file.open("r+b") as handle:
            handle.seek(len(key) + found.nbytes)
            for rows in rest(done):
                handle.write(rows.astype("<f4").tobytes())
                handle.flush()
                parts.append(rows)
    return np.concatenate(parts)


def _draw(sheet: Path, listing: Listing, tags: Sequence[Tags]) -> None:
    """The pictures of the least likely predictions."""
    from retrieval.sheet import INK, save_pictures

    predictions = (
        (chance, row, tag) for tag in tags for row, chance in enumerate(tag.chances) if chance
    )
    pictures = []
    for chance, row, tag in nsmallest(LEAST_SURE, predictions, key=lambda found: found[:2]):
        path, name = listing.pictures[row], normalise_name(tag.attribute.name)
        lines = [(path, INK), (f"{name}: {tag.said[row]} {float(chance):.0%}", INK)]
        pictures.append((listing.root / path, lines))
    save_pictures(sheet, "least sure predictions", pictures)


def _tell(out: Path, listing: Listing, tags: Sequence[Tags], unseen: int, as_json: bool) -> None:
    counts = {}
    for tag in tags:
        empty = listing.cells(tag.attribute).count("")
        told = {"known": len(listing.pictures) - empty}
        told["filled"] = len(tag.texts) - tag.texts.count("")
        told["unsure"] = len(tag.chances) - tag.chances.count("") - told["filled"]
        counts[tag.attribute.name] = told
    if as_json:
        print_json({"out": str(out), "unseen": unseen, "attributes": counts})
        return
    table = Table(title="rows by attribute", title_justify="left")
    for number, heading in enumerate(("attribute", "known", "filled", "not sure")):
        table.add_column(heading, justify="right" if number else "left")
    for name, told in counts.items():
        table.add_row(plain(name), *(f"{count:,}" for count in told.values()))
    print_table(table)
    if unseen:
        say(f"{unseen:,} pictures could not be seen; their rows are as they were", stdout)
    say(f"written to {out}", stdout)
