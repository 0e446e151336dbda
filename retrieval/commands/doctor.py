"""`retrieve doctor`: check the installation, and a dataset and an index if they are named."""

from __future__ import annotations

from pathlib import Path

import click

from retrieval.console import print_json, stderr, stdout
from retrieval.printable import plain
from training.errors import UsageError

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command("doctor")
@click.option("--dataset", "name", metavar="NAME|FOLDER", help="A dataset to look at.")
@click.option("--root", type=click.Path(path_type=Path), help="The dataset's folder.")
@click.option("--index", type=click.Path(path_type=Path), help="An index to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(name: str | None, root: Path | None, index: Path | None, as_json: bool) -> int:
    """Check the installation with a small search from nothing, then a dataset and an index.

    Ends with 0 unless something failed; else with that failure's code.
    """
    if root is not None and name is None:
        raise UsageError("--root goes with --dataset")

    from retrieval.doctor import examine

    code, checks = 0, []
    for check in examine(None if name is None else (name, root), index):
        code = code or check.exit_code
        checks.append(check)
        if not as_json:
            state = f"[{_COLOURS[check.state]}]{check.state:8}[/]"
            stdout.print(f"{state} {check.name:12} {plain(check.detail)}", soft_wrap=True)
    failed = [check.name for check in checks if check.exit_code]
    if failed:
        words = f"retrieve: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        stderr.print(words, markup=False, soft_wrap=True)
    if as_json:
        print_json({"sound": code == 0, "checks": [check.to_json() for check in checks]})
    return code
