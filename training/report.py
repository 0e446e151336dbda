"""What a run tells: epoch by epoch while it lasts, and in the end. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Difference:
    """How far an ONNX file is from torch over some images."""

    chances_largest: float  # absolute difference of a chance, 0..1
    chances_mean: float  # likewise
    nuance_least: float | None  # cosine of a unit vector of nuance; None if there is none
    nuance_mean: float | None  # likewise

    @property
    def told(self) -> str:
        """In words."""
        words = f"chances within {math.ceil(1e5 * self.chances_largest) / 1e5:.5f} of torch's"
        if self.nuance_least is not None:
            least = math.floor(1e4 * self.nuance_least) / 1e4
            words += f", nuance at a cosine of {least:.4f} or more"
        return words


@dataclass(frozen=True)
class Parity:
    """How far the ONNX files of a checkpoint are from torch in float32 on the CPU."""

    images: int  # how many this was measured on
    float32: Difference  # of `model.onnx`
    int8: Difference | None  # of `model.int8.onnx`; None: too far, so that there is none

    @property
    def told(self) -> dict[str, str]:
        """In words, by the file."""
        int8 = "int8 ruins it" if self.int8 is None else self.int8.told
        return {"model.onnx": self.float32.told, "model.int8.onnx": int8}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True)
class EpochReport:
    """One epoch: its number (1-based), mean losses, validation MAP in percent, seconds."""

    epoch: int
    losses: dict[str, float]
    validation: float | None
    seconds: float


@dataclass
class TrainReport:
    """A run: its folder, the epochs, the best of them, and the training images."""

    out: Path  # the run's folder
    epochs: list[EpochReport] = field(default_factory=list)  # those that are done
    best_epoch: int = 0  # number of the one whose checkpoint is kept
    best_validation: float | None = None  # its figure
    images: int = 0  # how many were trained on
    # (path, reason) of those that could not be read
    failures: list[tuple[str, str]] = field(default_factory=list)
    export: Parity | None = (
        None  # of the ONNX files; None if there are none, see `export_checkpoint`
    )


class Progress:
    """What a run tells its caller; every method may be overridden."""

    def encoded(self, count: int) -> None:
        """So many images were read, or encoded by a frozen backbone, before the first epoch."""

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """An epoch begins, of `steps` batches."""

    def step(self, losses: dict[str, float]) -> None:
        """A batch is done."""

    def end_epoch(self, report: EpochReport) -> None:
        """An epoch and its validation are done."""

    def exporting(self) -> None:
        """The last epoch is done, and the best is exported."""
