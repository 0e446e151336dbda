"""Running `retrieve` the way a user does: one process a command, the command shown first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from training.run_folder import whole_last


def retrieve(*arguments: Any) -> None:
    """Run a command with its output shown; stop this process if it fails."""
    words = [str(argument) for argument in arguments]
    click.echo(f"\n$ retrieve {' '.join(words)}")
    done = subprocess.run([sys.executable, "-m", "retrieval.cli", *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def train_or_resume(run: Path, options: list[Any]) -> None:
    """Train a run, or what is left of it."""
    resume = [] if whole_last(run) is None else ["--resume"]
    retrieve("train", *options, "--out", run, *resume)
