"""Runs and what was measured on them, in a folder that all tables share.

WORK/runs/asen-s0-1f2e3d4c5b6a/    config.toml, best/, last/, train.json, evaluation/
WORK/runs/cache/                   maps of the frozen backbone, shared by the runs
WORK/measured/KEY.json             what was measured, by `evaluation_key`
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tables.plan import PlannedRun
from training.files import write_file
from training.run_folder import whole_last


@dataclass(frozen=True)
class RunStore:
    """The folder; everything in it can be deleted at the price of computing it again."""

    work: Path

    def folder(self, run: PlannedRun) -> Path:
        """Of the run's checkpoints; named after what it is, not after the row that asked first."""
        name = f"{run.config.model.architecture}-s{run.config.seed}-{run.training[:12]}"
        return self.work / "runs" / name

    def measured(self, run: PlannedRun) -> dict[str, Any] | None:
        """What was measured on the run; None if nothing was, or the file is broken."""
        return _read(self._file(run))

    def keep_measured(self, run: PlannedRun, record: dict[str, Any]) -> None:
        """Write what was measured, whole or not at all; raises ResourceError."""
        _write(self._file(run), record)

    def trained(self, run: PlannedRun) -> dict[str, Any] | None:
        """What `retrieve train` said when the run was finished; None if it is not."""
        record = _read(self.folder(run) / "train.json")
        whole = (self.folder(run) / "best" / "config.json").is_file()
        return record if whole else None

    def keep_trained(self, run: PlannedRun, record: dict[str, Any]) -> None:
        """Mark the run as finished; raises ResourceError."""
        _write(self.folder(run) / "train.json", record)

    def prepare(self, run: PlannedRun, config: str) -> bool:
        """Write the run's config; whether there is a state to resume from.

        What a kill left that cannot be resumed is removed.
        """
        folder = self.folder(run)
        resumable = whole_last(folder) is not None
        if not resumable:
            shutil.rmtree(folder, ignore_errors=True)
        write_file(folder / "config.toml", config.encode())
        return resumable

    def _file(self, run: PlannedRun) -> Path:
        return self.work / "measured" / f"{run.evaluation[:32]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write(path: Path, record: dict[str, Any]) -> None:
    write_file(path, (json.dumps(record, indent=1) + "\n").encode())
