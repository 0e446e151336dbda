"""`retrieve wardrobe DIR`: render the project's own garments to disk."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retrieval.console import print_json, stderr, stdout
from training.errors import ResourceError, UsageError
from training.wardrobe.plan import Written
from training.wardrobe.write_catalogue import write_catalogue
from training.wardrobe.write_darn import write_darn
from training.wardrobe.write_deepfashion import write_deepfashion

LAYOUTS = ("catalogue", "darn", "deepfashion")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--count", default=1000, show_default=True, type=click.IntRange(1, 10_000_000))
@click.option("--size", default=224, show_default=True, type=click.IntRange(32, 2048))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1))
@click.option("--layout", default="catalogue", show_default=True, type=click.Choice(LAYOUTS))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256))
@click.option("--masks", is_flag=True, help="Write the region of every attribute (catalogue).")
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    folder: Path,
    count: int,
    size: int,
    seed: int,
    layout: str,
    workers: int,
    masks: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw COUNT pictures of garments, labelled in nine attributes, into DIR.

    The same count, size and seed give the same files. Several pictures show one item; splits are
    8:1:1 by item. An existing file in DIR that is not drawn anew stays, with --overwrite.
    """
    if masks and layout != "catalogue":
        raise UsageError(f"--masks goes with --layout catalogue, not {layout}")
    _check_empty(folder, overwrite)
    start = time.perf_counter()
    done = _write(folder, count, size, seed, layout, workers, masks)
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "layout": layout,
                "images": done.images,
                "items": done.items,
                "splits": done.splits,
                "size": size,
                "seed": seed,
                "seconds": round(seconds, 3),
            }
        )
        return
    splits = ", ".join(f"{n} {split}" for split, n in done.splits.items())
    stdout.print(
        f"{done.images} pictures of {done.items} items ({splits}) in {folder}, "
        f"layout {layout}, {done.images / seconds:.0f} a second",
        soft_wrap=True,
        markup=False,
    )


def _check_empty(folder: Path, overwrite: bool) -> None:
    try:
        full = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise ResourceError(f"cannot look into {folder}: {error.strerror}") from error
    if full and not overwrite:
        raise UsageError(f"{folder} is not empty; choose another folder, or say --overwrite")


def _write(
    folder: Path, count: int, size: int, seed: int, layout: str, workers: int, masks: bool
) -> Written:
    columns = (
        TextColumn("drawing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("drawing", total=count)

        def progress(drawn: int) -> None:
            bar.update(task, completed=drawn)

        if layout == "darn":
            return write_darn(folder, count, size, seed, workers, progress)
        if layout == "deepfashion":
            return write_deepfashion(folder, count, size, seed, workers, progress)
        return write_catalogue(folder, count, size, seed, workers, masks, progress)
