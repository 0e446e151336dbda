"""`retrieve add`: put single images into an index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.lock import check_unlocked
from retrieval.build_progress import BuildProgress
from retrieval.console import print_json, stderr
from retrieval.gallery_paths import paths_in
from retrieval.names import split_names
from retrieval.printable import printable
from retrieval.terminable import terminable
from training.errors import DataError, UsageError

if TYPE_CHECKING:
    from indexer.edit import EditReport


@click.command("add")
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--labels",
    multiple=True,
    metavar="ATTRIBUTE=VALUE,...",
    help="What is known of all of these images; attributes that are not named stay as they were.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    index: Path, images: tuple[str, ...], labels: tuple[str, ...], device: str, as_json: bool
) -> int:
    """Encode each IMAGE and put it at the end of INDEX, without building it again.

    \b
    retrieve add indexes/shop shop/new.jpg --labels colour=red,neckline=v-neckline

    Images have to lie in the gallery's folder. One that is there already is encoded anew if it has
    changed, and keeps its place.
    """
    stated = split_names("--labels", labels)
    check_unlocked(index)

    from indexer.device import choose_device
    from indexer.edit import add_images
    from indexer.store import open_store
    from retrieval.stated_labels import stated_labels

    store = open_store(index)
    states = stated_labels(store.schema, stated) if stated else None
    paths = [_path(store.root, image) for image in images]
    choice = choose_device(device)
    with terminable("nothing was added"), BuildProgress(stderr) as progress:
        if choice.remark:
            progress.say(choice.remark)
        report = add_images(index, paths, states, choice.device, progress)
    if as_json:
        print_json(to_json(index, report))
    else:
        click.echo(
            f"{report.added:,} added, {report.changed:,} changed, {report.unchanged:,} unchanged; "
            f"{report.images:,} images in {printable(str(index))}"
        )
    return 0


def to_json(index: Path, report: EditReport) -> dict[str, str | int]:
    """An edit as a JSON-ready dict."""
    return {
        "index": str(index),
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "images": report.images,
    }


def _path(root: Path, image: str) -> str:
    """The image relative to the gallery's folder."""
    inside = paths_in(root, image)
    for path in inside:
        if os.path.lexists(root / path):
            return path
    if os.path.lexists(image):
        raise UsageError(
            f"{image} does not lie in the gallery's folder {root}; copy it there first"
        )
    raise DataError(f"{image}: no such file, neither here nor in the gallery's folder {root}")
