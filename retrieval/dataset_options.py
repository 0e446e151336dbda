"""`--dataset` and `--root`, which four commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from training.datasets import ADAPTERS

Command = TypeVar("Command", bound=Callable[..., Any])


def dataset_options(command: Command) -> Command:
    """Add both options; the command gets `name` (str) and `root` (Path or None)."""
    root = click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="The dataset's folder [default: $RETRIEVE_DATA/NAME, then data/NAME].",
    )
    dataset = click.option(
        "--dataset",
        "name",
        required=True,
        metavar="NAME|FOLDER",
        help=f"One of {', '.join(ADAPTERS)}, or a folder.",
    )
    return dataset(root(command))


item_option = click.option(
    "--item-column",
    metavar="COLUMN",
    help="Column of a catalogue that tells which pictures show one product [default: item].",
)
"""`--item-column`, which three commands share; the command gets `item_column` (str or None)."""
