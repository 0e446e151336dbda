"""Progress bars of the long commands, on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from retrieval.console import stderr
from training.train_report import EpochReport
from training.train_report import Progress as TrainerProgress


def bar() -> Progress:
    """A bar with count, elapsed and remaining time; transient, so that logs stay short."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,  # a log gets a line an epoch, not the bars
    )


class CountBar:
    """A bar over images; call it with the number just done."""

    def __init__(self, title: str, total: int) -> None:
        self._bar = bar()
        self._task = self._bar.add_task(title, total=total)

    def __enter__(self) -> CountBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, count: int) -> None:
        """Count images."""
        self._bar.advance(self._task, count)


class TrainingBars(TrainerProgress):
    """A bar an epoch with the running losses, and a line an epoch with their means.

    Args:
        images: images that are read, or encoded by a frozen backbone, before the first epoch.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._title = ""

    def __enter__(self) -> TrainingBars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def encoded(self, count: int) -> None:
        """Count images that were read before the first epoch."""
        if self._bar is None:
            self._open("reading images", self._images)
        assert self._bar is not None
        self._bar.advance(self._task, count)

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """Open the epoch's bar."""
        self._open(f"epoch {epoch}/{epochs}", steps)

    def step(self, losses: dict[str, float]) -> None:
        """Advance, and show the losses of the batch."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=f"{self._title}  {_shown(losses)}")

    def end_epoch(self, report: EpochReport) -> None:
        """Close the bar and print the epoch's line."""
        self._close()
        figure = "" if report.validation is None else f"  valid MAP {report.validation:.2f} %"
        stderr.print(
            f"{self._title}  {_shown(report.losses)}{figure}  {report.seconds:.0f} s",
            soft_wrap=True,
        )

    def _open(self, title: str, total: int) -> None:
        self._close()
        self._title = title
        self._bar = bar()
        self._task = self._bar.add_task(title, total=total)
        self._bar.start()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _shown(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if value)
