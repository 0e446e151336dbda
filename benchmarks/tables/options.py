"""The options that `retrieve bench map`, `ablations` and `combinations` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.write_results import RESULTS
from retrieval.dataset_options import dataset_options


@dataclass(frozen=True)
class Options:
    """As given on the command line; fields as the options below."""

    name: str
    root: Path | None
    backbone: str
    weights: str | None
    item_column: str | None
    seeds: int
    rows: str | None
    rows_file: Path | None
    epochs: int | None
    image_size: int | None
    work: Path
    results: Path
    device: str
    workers: int
    render_only: bool
    as_json: bool

    def suffix(self, own_rows: Path) -> str:
        """What tells the files of this table from those of its own rows in full, or nothing.

        Args:
            own_rows: the row file of the table itself.
        """
        parts = []
        if self.rows_file is not None and self.rows_file.resolve() != own_rows.resolve():
            parts.append(self.rows_file.stem)
        if self.epochs is not None:
            parts.append(f"{self.epochs}-epochs")
        if self.image_size is not None:
            parts.append(f"{self.image_size}-px")
        return "".join(f"-{part}" for part in parts)


def table_options(command: Callable[[Options], int]) -> Callable[..., int]:
    """Add the options to a command that takes them as one `Options`."""

    def gathered(**given: Any) -> int:
        return command(Options(**given))

    gathered.__doc__ = command.__doc__
    decorated: Callable[..., int] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return dataset_options(decorated)


_OPTIONS = (
    click.option("--backbone", default="resnet18", show_default=True),
    click.option(
        "--weights",
        metavar="FILE",
        help="Backbone weights, kept frozen unless a row says otherwise [default: from scratch].",
    ),
    click.option(
        "--item-column",
        metavar="NAME",
        help="Column of labels.csv that tells which pictures show one product [default: item].",
    ),
    click.option("--seeds", type=click.IntRange(1, 16), default=3, show_default=True),
    click.option("--rows", metavar="A,B", help="Make only these rows [default: all]."),
    click.option(
        "--rows-file",
        type=click.Path(path_type=Path),
        help="Another file of rows [default: the table's own, in benchmarks/tables].",
    ),
    click.option("--epochs", type=click.IntRange(min=1), help="At most this many, to try it out."),
    click.option("--image-size", type=click.IntRange(min=32), help="Pixels [default: 224]."),
    click.option(
        "--work",
        type=click.Path(path_type=Path),
        default=Path("runs/tables"),
        show_default=True,
        help="Where the runs are kept; tables share them.",
    ),
    click.option(
        "--results",
        type=click.Path(path_type=Path),
        default=RESULTS,
        show_default="benchmarks/results",
        help="Where JSON, Markdown and chart go.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True),
    click.option(
        "--render-only", is_flag=True, help="Render the JSON in --results again, measure nothing."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)
