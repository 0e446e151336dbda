"""`retrieve wardrobe DIR`: render the project's own garments to disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from benchmarks.wardrobe.write import Written, write_catalogue, write_darn, write_deepfashion
from retrieval.console import counting, print_json, say, stdout
from retrieval.options import JSON, filled
from training.errors import ResourceError, UsageError

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LAYOUTS = click.Choice(["catalogue", "darn", "deepfashion"])


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve wardrobe` is told."""

    folder: Annotated[Path, click.argument("folder", type=_FOLDER, metavar="DIR")]
    count: Annotated[int, click.IntRange(1, 10_000_000), "Pictures."] = 1000
    size: Annotated[int, click.IntRange(32, 2048), "Pixels a side."] = 224
    seed: Annotated[int, click.IntRange(0, 2**63 - 1)] = 0
    layout: Annotated[str, _LAYOUTS] = "catalogue"
    workers: Annotated[int, click.IntRange(1, 256)] = 1
    masks: Annotated[bool, "Write the region of every attribute (catalogue)."] = False
    overwrite: Annotated[bool, "Write into a folder that is not empty."] = False
    as_json: Annotated[bool, JSON]


@click.command()
@filled(Options)
def command(options: Options) -> None:
    """Draw COUNT pictures of garments, labelled in nine attributes, into DIR.

    The same count, size and seed give the same files. Several pictures show one item; splits are
    8:1:1 by item. An existing file in DIR that is not drawn anew stays, with --overwrite.
    """
    folder, layout = options.folder, options.layout
    if options.masks and layout != "catalogue":
        raise UsageError(f"--masks goes with --layout catalogue, not {layout}")
    try:
        full = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ResourceError(f"cannot look into {folder}: {error.strerror}") from error
    if full and not options.overwrite:
        raise UsageError(f"{folder} is not empty; choose another folder, or say --overwrite")
    start = time.perf_counter()
    done = _write(options)
    seconds = time.perf_counter() - start
    if options.as_json:
        told = {name: getattr(options, name) for name in ("layout", "size", "seed")}
        found = {name: getattr(done, name) for name in ("images", "items", "splits")}
        print_json({"folder": str(folder), **told, **found, "seconds": round(seconds, 3)})
        return
    splits = ", ".join(f"{n} {split}" for split, n in done.splits.items())
    rate = f"{done.images / seconds:.0f} a second"
    what = f"{done.images} pictures of {done.items} items ({splits})"
    say(f"{what} in {folder}, layout {layout}, {rate}", stdout)


def _write(options: Options) -> Written:
    what = options.folder, options.count, options.size, options.seed, options.workers
    with counting("drawing", options.count) as bar:

        def progress(drawn: int) -> None:
            bar(1)

        if options.layout == "darn":
            return write_darn(*what, progress)
        if options.layout == "deepfashion":
            return write_deepfashion(*what, progress)
        return write_catalogue(*what, options.masks, progress)
