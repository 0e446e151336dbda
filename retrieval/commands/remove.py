"""`retrieve remove`: take single images out of an index."""

from __future__ import annotations

from pathlib import Path

import click

from indexer.lock import check_unlocked
from retrieval.build_progress import BuildProgress
from retrieval.console import print_json, stderr
from retrieval.gallery_paths import paths_in
from retrieval.printable import printable
from retrieval.terminable import terminable


@click.command("remove")
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(index: Path, images: tuple[str, ...], as_json: bool) -> int:
    """Take each IMAGE out of INDEX; the image files stay where they are.

    \b
    retrieve remove indexes/shop shop/old.jpg
    """
    check_unlocked(index)

    from indexer.edit import remove_images
    from indexer.store import open_store
    from retrieval.commands.add import to_json

    store = open_store(index)
    there = set(store.paths)
    paths = []
    for image in images:
        inside = paths_in(store.root, image)
        paths.append(next((path for path in inside if path in there), image))
    with terminable("nothing was removed"), BuildProgress(stderr) as progress:
        report = remove_images(index, paths, progress)
    if as_json:
        print_json(to_json(index, report))
    else:
        click.echo(
            f"{report.removed:,} removed; {report.images:,} images in {printable(str(index))}"
        )
    return 0
