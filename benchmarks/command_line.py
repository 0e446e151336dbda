"""Running `retrieve` the way a user does: one process a command, the command shown first."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click


def retrieve(*arguments: Any) -> None:
    """Run a command with its output shown; stop this process if it fails."""
    _run([str(a) for a in arguments], capture=False)


def retrieve_json(*arguments: Any) -> str:
    """Run a command with `--json` and return what it prints on standard output.

    The command itself is shown on standard error, so that the caller may print JSON as well.
    """
    return _run([*(str(a) for a in arguments), "--json"], capture=True)


def _run(words: list[str], capture: bool) -> str:
    click.echo(f"\n$ retrieve {' '.join(words)}", err=capture)
    done = subprocess.run(
        [sys.executable, "-m", "retrieval.cli", *words],
        check=False,
        stdout=subprocess.PIPE if capture else None,
        text=True,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout if capture else ""
