"""`retrieve remove`: take single images out of an index."""

from __future__ import annotations

from pathlib import Path

import click

from indexer.store.manifest import check_unlocked
from retrieval.commands.add import tell
from retrieval.console import Bars
from retrieval.options import JSON, PATH, paths_in


@click.command("remove")
@click.argument("index", type=PATH)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@JSON
def command(index: Path, images: tuple[str, ...], as_json: bool) -> int:
    """Take each IMAGE out of INDEX; the image files stay where they are.

    \b
    retrieve remove indexes/shop shop/old.jpg
    """
    check_unlocked(index)

    from indexer.build.edit import remove_images
    from indexer.store.store import open_store

    store = open_store(index)
    there = set(store.paths)
    paths = [next((p for p in paths_in(store.root, i) if p in there), i) for i in images]
    with Bars() as progress:
        report = remove_images(index, paths, progress)
    return tell(index, report, f"{report.removed:,} removed", as_json)
