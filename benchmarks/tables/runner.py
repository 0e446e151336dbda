"""What trains and evaluates: `retrieve train` and `retrieve evaluate`, a process each."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.command_line import retrieve_json
from benchmarks.tables.floor import measure_floor
from benchmarks.tables.plan import PlannedRun
from training.datasets.dataset import Dataset


class Runner(Protocol):
    """The three things that cost time; tests put something quick in their place."""

    def train(self, run: PlannedRun, config: Path, out: Path, resume: bool) -> dict[str, Any]:
        """Train into `out`; what `retrieve train --json` prints, and `setup_seconds`."""
        ...

    def evaluate(self, run: PlannedRun, out: Path) -> dict[str, Any]:
        """What `retrieve evaluate --json` prints for the run in `out`."""
        ...

    def floor(self, run: PlannedRun) -> dict[str, Any]:
        """The same for the frozen backbone's pooled features."""
        ...


@dataclass(frozen=True)
class CommandLineRunner:
    """Runs the commands as a user types them.

    Args:
        dataset: loaded, for the floor.
        source: what `source_options` gives.
        device: auto, cpu, cuda or cuda:N.
        workers: decoding processes.
    """

    dataset: Dataset
    source: tuple[str, ...]
    device: str
    workers: int

    def train(self, run: PlannedRun, config: Path, out: Path, resume: bool) -> dict[str, Any]:
        """As in `Runner`; a resumed run has no `setup_seconds`."""
        started = time.monotonic()
        options = [*self.source, "--config", config, "--out", out, *self._machine()]
        report = json.loads(retrieve_json("train", *options, *(["--resume"] if resume else [])))
        report["setup_seconds"] = (
            None if resume else round(time.monotonic() - started - report["seconds"], 1)
        )
        return dict(report)

    def evaluate(self, run: PlannedRun, out: Path) -> dict[str, Any]:
        """As in `Runner`."""
        options = [*self.source, "--checkpoint", out, *self._machine()]
        options += ["--cache", out.parent / "cache"]  # beside the training maps
        if run.likeness_only:
            options.append("--likeness-only")
        return dict(json.loads(retrieve_json("evaluate", *options)))

    def floor(self, run: PlannedRun) -> dict[str, Any]:
        """As in `Runner`; in this process, for there is no checkpoint."""
        return measure_floor(self.dataset, run.config, self.device, self.workers)

    def _machine(self) -> list[Any]:
        return ["--device", self.device, "--workers", self.workers]


def source_options(name: str, root: Path | None, item_column: str | None) -> tuple[str, ...]:
    """Words that tell both commands which dataset it is, and which pictures show one product."""
    where = () if root is None else ("--root", str(root))
    items = () if item_column is None else ("--item-column", item_column)
    return ("--dataset", name, *where, *items)
