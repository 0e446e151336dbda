"""What is told of a training run: while it goes on and when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class EpochReport:
    """One epoch: its number (1-based), mean losses, validation MAP in percent, seconds."""

    epoch: int
    losses: dict[str, float]
    validation: float | None
    seconds: float


@dataclass
class TrainReport:
    """A finished run: the epochs, the best of them and where the checkpoints are."""

    out: Path
    epochs: list[EpochReport] = field(default_factory=list)
    best_epoch: int = 0
    best_validation: float | None = None


class Progress:
    """What the trainer tells a caller; every method may be overridden."""

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """An epoch begins, of `steps` batches."""

    def step(self, losses: dict[str, float]) -> None:
        """A batch is done."""

    def end_epoch(self, report: EpochReport) -> None:
        """An epoch and its validation are done."""
