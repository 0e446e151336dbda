"""What models are compared on: the options that tables and `retrieve bench likeness` share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from retrieval.options import ITEMS, dataset_options
from training.datasets import load_dataset
from training.datasets.dataset import Dataset


@dataclass(frozen=True)
class Setting:
    """As given on the command line; fields as the options below."""

    name: str
    root: Path | None
    item_column: str | None
    backbone: str
    weights: str | None
    seeds: int
    epochs: int | None
    rows: str | None

    def load(self) -> Dataset:
        """The dataset; raises DataError, UsageError."""
        return load_dataset(self.name, self.root, item_column=self.item_column)

    @property
    def words(self) -> list[str]:
        """What tells a command which dataset it is, and which pictures show one product."""
        told = {"--dataset": self.name, "--root": self.root, "--item-column": self.item_column}
        return [str(word) for pair in told.items() if pair[1] is not None for word in pair]


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which takes them as one `Setting` after its `Bench`."""

    @functools.wraps(command)
    def gathered(bench: Any, **given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(Setting)}
        weights = own["weights"]  # of a file its full path: a run's config is read from elsewhere
        if weights is not None and (weights.endswith(".safetensors") or "/" in weights):
            own["weights"] = str(Path(weights).expanduser().resolve())
        return command(bench, Setting(**own), **given)

    count = click.IntRange(min=1)
    decorated: Callable[..., Any] = gathered
    for option in (
        click.option("--rows", metavar="A,B", help="Make only these rows [default: all]."),
        click.option("--epochs", type=count, help="At most this many, to try it out."),
        click.option("--seeds", type=click.IntRange(1, 16), default=3),
        click.option("--weights", metavar="FILE", help="Backbone weights [default: from scratch]."),
        click.option("--backbone", default="resnet18"),
        click.option("--item-column", metavar="COLUMN", help=ITEMS),
        dataset_options,
    ):
        decorated = option(decorated)
    return decorated
