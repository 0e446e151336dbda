"""`retrieve merge-index`: make an index of parts that were encoded apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from retrieval.commands.build_index import GalleryOptions, tell
from retrieval.console import Bars
from retrieval.options import PATH, filled

_FOLDERS = click.argument("folders", nargs=-1, type=PATH, metavar="[FOLDER]...")


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """What `retrieve merge-index` is told."""

    folders: Annotated[tuple[Path, ...], _FOLDERS]


@click.command("merge-index")
@filled(Options)
def command(options: Options) -> int:
    """Make an index of the parts in each FOLDER, which `build-index --part` had as --out
    [default: that of the index].

    \b
    retrieve build-index --dataset shop --part 1/2
    retrieve build-index --dataset shop --part 2/2
    retrieve merge-index --dataset shop

    It is, to the byte, what one build with the same options makes.
    """
    options.check(options.folder)

    from indexer.build.parts import merge_parts
    from training.checkpoint import load_checkpoint

    loaded = load_checkpoint(options.run)
    dataset = options.load(loaded.schema)
    folders = options.folders or (options.folder,)
    with Bars() as progress:
        how = options.how(progress)
        report = merge_parts(dataset, options.rows(dataset), loaded, options.folder, folders, how)
    return tell(options, report)
