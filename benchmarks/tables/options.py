"""What models are trained and compared on: the options that such benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from benchmarks.common import WorkBench
from retrieval.options import COUNT, DatasetOptions
from training.models.backbones import is_file


@dataclass(frozen=True, kw_only=True)
class Trained(WorkBench, DatasetOptions):
    """Dataset, backbone and how many seeds."""

    backbone: Annotated[str, "Of every row."] = "resnet18"
    weights: Annotated[str | None, "File of backbone weights [default: from scratch]."] = None
    seeds: Annotated[int, click.IntRange(1, 16), "Of every row."] = 3
    epochs: Annotated[int | None, COUNT, "At most this many, to try it out."] = None

    def __post_init__(self) -> None:
        """A weights file has its full path: a run's config is read from elsewhere."""
        if self.weights is not None and is_file(self.weights):
            whole = str(Path(self.weights).expanduser().resolve())
            object.__setattr__(self, "weights", whole)

    @property
    def file_part(self) -> str:
        """The backbone in the name of a file, which on Windows may have no colon."""
        return self.backbone.replace(":", "-")


@dataclass(frozen=True, kw_only=True)
class Setting(Trained):
    """And which rows."""

    rows: Annotated[str | None, "Make only these, A,B [default: all]."] = None
