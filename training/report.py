"""What a run tells: epoch by epoch while it lasts, and in the end. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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
