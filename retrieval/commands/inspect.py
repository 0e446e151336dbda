"""`retrieve inspect`: counts, values, splits, missing and broken images of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.progress import Progress
from rich.table import Table

from retrieval.console import print_json, print_table, stderr, stdout
from retrieval.dataset_options import dataset_options
from retrieval.inspection import (
    BrokenImage,
    Inspection,
    broken_images,
    inspect_dataset,
)
from retrieval.printable import plain
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import UsageError

VALUES_SHOWN = 12
PATHS_SHOWN = 5


@click.command("inspect")
@dataset_options
@click.option("--attributes", metavar="A,B", help="Only these attributes.")
@click.option("--images/--no-images", default=False, help="Decode every image; find broken ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str, root: Path | None, attributes: str | None, images: bool, as_json: bool
) -> None:
    """Print counts, values, splits, missing and broken files of a dataset."""
    chosen: list[str] | None = None
    if attributes is not None:
        chosen = [part.strip() for part in attributes.split(",") if part.strip()]
        if not chosen:
            raise UsageError(f"--attributes {attributes!r} names no attribute; give e.g. a,b")
    dataset = load_dataset(name, root, chosen)
    found = inspect_dataset(dataset)
    if images:
        found = replace(found, broken=_open_all(dataset, found.missing))
    if as_json:
        print_json(found.to_json())
    else:
        print_inspection(found)


def print_inspection(found: Inspection) -> None:
    """Write an inspection as tables to standard output, for a person."""
    stdout.print(f"[bold]{plain(found.dataset)}[/bold]  {plain(found.root)}")
    columns = [c for c, count in found.images.items() if count or c == "all"]
    overview = Table(title="images and labels by split", title_justify="left")
    overview.add_column("attribute")
    overview.add_column("values", justify="right")
    for column in columns:
        overview.add_column(column, justify="right")
    overview.add_row("(images)", "", *(f"{found.images[c]:,}" for c in columns), end_section=True)
    for a in found.attributes:
        label = plain(a.name) + (" (multi)" if a.multi else "")
        overview.add_row(label, str(len(a.values)), *(f"{a.labelled[c]:,}" for c in columns))
    print_table(overview)
    print_table(_values_table(found, columns))
    for split, lists in found.protocols.items():
        stdout.print(
            f"published lists, {split}: {lists.queries:,} queries, {lists.candidates:,} candidates"
        )
    extras = [
        f"{found.categories} categories" if found.categories else "",
        "" if found.items is None else f"{found.items:,} items",
        "boxes" if found.boxes else "",
        "landmarks" if found.landmarks else "",
        f"columns {plain(', '.join(found.payload))}" if found.payload else "",
    ]
    if any(extras):
        stdout.print("also: " + ", ".join(e for e in extras if e))
    for note in found.notes:
        stdout.print(f"note: {plain(note)}")
    _print_unusable("missing", [plain(path) for path in found.missing])
    if found.broken is not None:
        _print_unusable("broken", [f"{plain(b.path)}: {plain(b.reason)}" for b in found.broken])


def _values_table(found: Inspection, columns: list[str]) -> Table:
    table = Table(title="images that have a value", title_justify="left")
    table.add_column("attribute")
    table.add_column("value")
    for column in columns:
        table.add_column(column, justify="right")
    for a in found.attributes:
        ranked = sorted(a.values, key=lambda v: -v.images["all"])
        shown = ranked[:VALUES_SHOWN] if len(ranked) > VALUES_SHOWN + 1 else ranked
        for place, value in enumerate(shown):
            name = plain(a.name) if place == 0 else ""
            table.add_row(name, plain(value.name), *(f"{value.images[c]:,}" for c in columns))
        if len(shown) < len(ranked):
            table.add_row("", f"and {len(ranked) - len(shown)} more (all with --json)")
        table.add_section()
    return table


def _print_unusable(what: str, lines: list[str]) -> None:
    stdout.print(f"{what} images: {len(lines):,}")
    for line in lines[:PATHS_SHOWN]:
        stdout.print(f"  {line}")
    if len(lines) > PATHS_SHOWN:
        stdout.print(f"  and {len(lines) - PATHS_SHOWN:,} more (all with --json)")


def _open_all(dataset: Dataset, missing: list[str]) -> list[BrokenImage]:
    with Progress(console=stderr, transient=True) as progress:
        task = progress.add_task("decoding", total=len(set(dataset.paths)))
        return broken_images(dataset, set(missing), lambda: progress.advance(task))
