"""`retrieve add`: put single images into an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from indexer.store.manifest import check_unlocked
from retrieval.console import Bars, print_json, printable
from retrieval.options import DEVICE, JSON, PATH, paths_in, split_names
from training.errors import DataError, UsageError
from training.schema import Condition, Schema

if TYPE_CHECKING:
    from indexer.build.edit import EditReport


@click.command("add")
@click.argument("index", type=PATH)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--labels",
    help="What is known of all of these images; attributes that are not named stay as they were.",
    metavar="ATTRIBUTE=VALUE,...",
    multiple=True,
)
@DEVICE
@JSON
def command(
    index: Path, images: tuple[str, ...], labels: tuple[str, ...], device: str, as_json: bool
) -> int:
    """Encode each IMAGE and put it at the end of INDEX, without building it again.

    \b
    retrieve add indexes/shop shop/new.jpg --labels colour=red,neckline=v-neckline

    Images have to lie in the gallery's folder. One that is there already is encoded anew if it has
    changed, and keeps its place.
    """
    split_names("--labels", labels)  # says what is wrong with them before anything is opened
    check_unlocked(index)

    from indexer.build.edit import add_images
    from indexer.store.store import open_store
    from training.device import choose_device

    store = open_store(index)
    knows = store.schema.knows
    stated = split_names("--labels", labels, lambda name: knows(name.replace("=", ":", 1)))
    states = stated_labels(store.schema, stated) if stated else None
    paths = [_path(store.root, image) for image in images]
    choice = choose_device(device)
    with Bars() as progress:
        if choice.remark:
            progress.say(choice.remark)
        report = add_images(index, paths, states, choice.device, progress)
    what = f"{report.added:,} added, {report.changed:,} changed, {report.unchanged:,} unchanged"
    return tell(index, report, what, as_json)


def tell(index: Path, report: EditReport, what: str, as_json: bool) -> int:
    """Print what became of an index, as JSON or as `what` and a count."""
    if as_json:
        names = ("added", "changed", "unchanged", "removed", "images")
        print_json({"index": str(index)} | {name: getattr(report, name) for name in names})
    else:
        click.echo(f"{what}; {report.images:,} images in {printable(str(index))}")
    return 0


def _path(root: Path, image: str) -> str:
    """The image relative to the gallery's folder."""
    for path in paths_in(root, image):
        if os.path.lexists(root / path):
            return path
    if os.path.lexists(image):
        raise UsageError(
            f"{image} does not lie in the gallery's folder {root}; copy it there first"
        )
    raise DataError(f"{image}: no such file, neither here nor in the gallery's folder {root}")


def stated_labels(schema: Schema, given: Sequence[str]) -> Condition:
    """Label states [K] from statements `attribute=value`; an attribute's other values are absent.

    UsageError for an unknown attribute or value, no `=`, or two values where there is only one.
    """
    values = []
    for text in given:
        attribute, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--labels {text!r} is not of the form attribute=value")
        values.append(schema.value_of(attribute, value))
    stated = schema.value_condition(values)
    for number in np.unique(schema.attribute_of[stated == 1]).tolist():
        where = schema.slice_of(number)
        if stated[where].sum() > 1 and not schema.multi[number]:
            name, said = schema.attributes[number].name, ", ".join(given)
            raise UsageError(f"--labels {said}: an image has only one value of {name!r}")
        stated[where] = np.where(stated[where] == 1, 1, -1)
    return stated
