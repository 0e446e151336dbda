"""What every benchmark shares: options, the stamp of machine and commit, results and their tables.

@bench_command("attention", markdown)
@click.option("--checkpoint", required=True)
def command(bench: Bench, checkpoint: Path) -> Iterator[Result]:
    yield "attention-wardrobe", {"rows": [...]}
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from training.files import write_file

RESULTS = Path(__file__).parent / "results"
CODE = ("training", "indexer", "retrieval", "benchmarks")

Data = dict[str, Any]
"""What is measured, ready for JSON."""

Result = tuple[str, Data]
"""Stem of the files, and what is in them."""


@dataclass(frozen=True)
class Bench:
    """What every benchmark is told.

    Args:
        results: folder of JSON and Markdown.
        work: folder of what is kept between calls; of a command without `--work` the current one.
        device: auto, cpu, cuda or cuda:N.
        workers: processes that decode or draw.
    """

    results: Path
    work: Path
    device: str
    workers: int


def bench_command(
    name: str,
    markdown: Callable[[Data], str],
    work: str | None = None,
) -> Callable[[Callable[..., Iterable[Result]]], click.Command]:
    """Make a command of a function that measures: it is given a `Bench` and its own options.

    Whatever it yields is stamped with machine and commit and written, so that an early stop keeps
    what is done; the last result is printed.

    Args:
        name: of the command.
        markdown: renders a result.
        work: default of `--work`; None: the command keeps nothing.
    """

    def decorate(measure: Callable[..., Iterable[Result]]) -> click.Command:
        @functools.wraps(measure)
        def run(results: Path, device: str, workers: int, work: Path = Path(), **own: Any) -> None:
            text = ""
            for stem, measured in measure(Bench(results, work, device, workers), **own):
                data = {"machine": machine_name(device), "commit": commit_name()} | measured
                text = markdown(data).rstrip() + "\n"
                write_file(results / f"{stem}.json", (json.dumps(data, indent=1) + "\n").encode())
                write_file(results / f"{stem}.md", text.encode())
            click.echo(text)

        command = click.command(name, context_settings={"show_default": True})(run)
        command.params += _shared_options(work)
        return command

    return decorate


def _shared_options(work: str | None) -> list[click.Parameter]:
    folder, shown, some = click.Path(path_type=Path), "benchmarks/results", click.IntRange(min=0)
    kept = [] if work is None else [click.Option(["--work"], type=folder, default=work)]
    return [
        *kept,
        click.Option(["--results"], type=folder, default=RESULTS, show_default=shown),
        click.Option(["--device"], default="auto", help="auto, cpu, cuda or cuda:N."),
        click.Option(["--workers"], type=some, default=2, help="Processes that decode or draw."),
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *notes: str) -> str:
    """A Markdown table whose first column is text and whose others are figures, and paragraphs.

    Args:
        header: a cell a column.
        rows: likewise; a `|` in a cell is escaped.
        notes: paragraphs below it; empty ones are left out.
    """
    rule = ["---"] + ["---:"] * (len(header) - 1)
    grid = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in (header, rule, *rows)
    )
    return "\n\n".join([grid, *filter(None, notes)])


def retrieve(*words: Any, capture: bool = False) -> str:
    """Run `retrieve` as a user does, shown first; stop this process if it fails.

    Returns:
        What it prints on standard output if that is captured; the command is then shown on
        standard error.
    """
    text = [str(word) for word in words]
    click.echo(f"\n$ retrieve {' '.join(text)}", err=capture)
    pipe = subprocess.PIPE if capture else None
    done = subprocess.run(
        [sys.executable, "-m", "retrieval.cli", *text], check=False, stdout=pipe, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def train_or_resume(run: Path, options: Sequence[Any]) -> None:
    """Train a run, or what is left of it."""
    from training.resume import whole_last

    retrieve("train", *options, "--out", run, *([] if whole_last(run) is None else ["--resume"]))


def machine_name(device: str = "cpu") -> str:
    """Such as `x86_64, 2 cores, AVX2, no GPU`; never the name of a host.

    The widest vector instructions are named since rates differ threefold with them.
    """
    import torch

    from training.device import choose_device

    found = choose_device(device).device
    gpu = torch.cuda.get_device_name(found) if found.startswith("cuda") else "no GPU"
    return f"{platform.machine()}, {cores()} cores, {vector_instructions()}, {gpu}"


def vector_instructions() -> str:
    """The widest that torch uses on this processor, such as `AVX2` or `AVX512`."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit_name() -> str:
    """The commit of this checkout, short; with `+` if the code was changed since, or `unknown`."""
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    changed = _git("status", "--porcelain", "--", *(f"{room}/*.py" for room in CODE))
    return commit + ("+" if changed else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(RESULTS.parents[1]), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
