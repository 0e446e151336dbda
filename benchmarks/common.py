"""What every benchmark shares: options, the stamp of machine and commit, results and their tables.

@dataclass(frozen=True, kw_only=True)
class Options(Bench):
    checkpoint: Annotated[Path, "The trained model."]

@bench_command("attention", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    yield "attention-wardrobe", {"rows": [...]}
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import click

from retrieval.options import PATH, filled
from training.files import write_file
from training.threads import cores

RESULTS = Path(__file__).parent / "results"
CODE = ("training", "indexer", "retrieval", "service", "benchmarks")

Data = dict[str, Any]
"""What is measured, ready for JSON."""

Result = tuple[str, Data]
"""Stem of the files, and what is in them."""

_RESULTS = click.option(
    "--results", type=PATH, default=RESULTS, show_default="benchmarks/results", help="Of the table."
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Options of every benchmark."""

    results: Annotated[Path, _RESULTS]
    device: Annotated[str, "auto, cpu, cuda or cuda:N."] = "auto"
    workers: Annotated[int, click.IntRange(min=0), "Threads that decode, processes that draw."] = 2


@dataclass(frozen=True, kw_only=True)
class WorkBench(Bench):
    """Of one that keeps runs and pictures between calls."""

    work: Annotated[Path, "Folder of what is kept between calls."] = Path("runs/tables")

    @property
    def cache(self) -> Path:
        """Maps of frozen backbones, shared by the runs."""
        return self.work / "runs" / "cache"


Options = TypeVar("Options", bound=Bench)


def bench_command(
    name: str, markdown: Callable[[Data], str], options: type[Options]
) -> Callable[[Callable[[Options], Iterable[Result]]], click.Command]:
    """Make a command of a function that measures.

    Whatever it yields is stamped with machine and commit and written, so that an early stop keeps
    what is done; the last result, as `markdown` renders it, is printed.
    """

    def decorate(measure: Callable[[Options], Iterable[Result]]) -> click.Command:
        @functools.wraps(measure)
        def run(bench: Options) -> None:
            text = ""
            for stem, measured in measure(bench):
                data = {"machine": machine_name(bench.device), "commit": commit_name()} | measured
                text = markdown(data).rstrip() + "\n"
                write_json(bench.results / f"{stem}.json", data)
                write_file(bench.results / f"{stem}.md", text.encode())
            click.echo(text)

        return click.command(name)(filled(options)(run))

    return decorate


def write_json(path: Path, data: Data) -> None:
    """Write a whole file; raises ResourceError."""
    write_file(path, (json.dumps(data, indent=1) + "\n").encode())


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *notes: str) -> str:
    """A Markdown table whose first column is text and whose others are figures, and paragraphs.

    A `|` in a cell is escaped; empty notes are left out.
    """
    rule = ["---"] + ["---:"] * (len(header) - 1)
    grid = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in (header, rule, *rows)
    )
    return "\n\n".join([grid, *filter(None, notes)])


def retrieve(
    *words: Any, capture: bool = False, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Run `retrieve` as a user does, shown first; stop this process if it fails.

    `environment` is added to that of this process.

    Returns its standard output if that is captured; the command is shown on standard error then.
    """
    text = [str(word) for word in words]
    click.echo(f"\n$ retrieve {' '.join(text)}", err=capture)
    pipe = subprocess.PIPE if capture else None
    done = subprocess.run(
        [sys.executable, "-m", "retrieval.cli", *text],
        env=os.environ | environment,
        check=False,
        stdout=pipe,
        text=True,
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
