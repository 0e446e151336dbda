"""`make endurance`: every fault that can be injected at random, injected many times.

    retrieve bench endurance

What is promised stands in docs/reliability.md. Prints what went wrong, if anything did, and leaves
the table in benchmarks/results/.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.endurance.arguments import argument_trials
from benchmarks.endurance.check_images import check_images
from benchmarks.endurance.flips import KINDS, flips, make_target
from benchmarks.endurance.forked import one_thread
from benchmarks.endurance.kills import killed_steps, random_kills
from benchmarks.endurance.outcome import Outcome
from benchmarks.machine import commit_name, cores, machine_name
from benchmarks.write_results import RESULTS, write_results
from retrieval.console import print_json, printable

KILLS, STEPS, FLIPS, VECTORS, IMAGES = 60, 240, 200, 5000, 1000

_IMAGES_A_PROCESS = 250


@click.command("endurance")
@click.option("--kills", type=click.IntRange(1), default=KILLS, show_default=True)
@click.option("--steps", type=click.IntRange(0), default=STEPS, show_default=True, help="0: all.")
@click.option("--flips", "bits", type=click.IntRange(1), default=FLIPS, show_default=True)
@click.option("--vectors", type=click.IntRange(1), default=VECTORS, show_default=True)
@click.option("--images", type=click.IntRange(1), default=IMAGES, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="[default: benchmarks/results]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    kills: int,
    steps: int,
    bits: int,
    vectors: int,
    images: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Kill, flip, and feed with nonsense; count what survives. Exits with 1 if anything did not."""
    one_thread()
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for row in _rows(Path(name).resolve(), kills, steps, bits, vectors, images, seed):
            rows.append(row)
            click.echo(f"{row.survived:,} of {row.trials:,} survived: {row.fault}", err=True)
            for failure in row.failures[:20]:
                click.echo(f"    {printable(failure)}", err=True)
    data = {
        "rows": [
            {"fault": row.fault, "trials": row.trials, "survived": row.survived} for row in rows
        ],
        "machine": machine_name("cpu"),
        "commit": commit_name(),
        "seed": seed,
        "seconds": round(time.monotonic() - started),
    }
    stem = f"endurance-{platform.machine()}-{cores()}-cores"
    text = markdown(rows)
    write_results(RESULTS if out is None else out, stem, data, text)
    if as_json:
        print_json(data)
    else:
        click.echo(text)
    return int(any(row.survived < row.trials for row in rows))


def markdown(rows: list[Outcome]) -> str:
    """The table of a run."""
    lines = ["| fault | trials | survived |", "|---|---:|---:|"]
    lines += [f"| {row.fault} | {row.trials:,} | {row.survived:,} |" for row in rows]
    return "\n".join(lines) + "\n"


def _rows(
    folder: Path, kills: int, steps: int, bits: int, vectors: int, images: int, seed: int
) -> Iterator[Outcome]:
    yield random_kills(_new(folder / "kills"), kills, seed)
    yield killed_steps(_new(folder / "steps"), steps, seed)
    make_target(_new(folder / "flips"))
    for kind in KINDS:
        yield flips(folder / "flips" / "index", kind, bits, seed)
    yield _image_trials(images, seed)
    yield argument_trials(_new(folder / "arguments"), vectors, first=seed * 1_000_000)


def _image_trials(trials: int, seed: int) -> Outcome:
    """Malformed images, in processes that each read some."""
    failures = []
    survived = 0
    for start in range(0, trials, _IMAGES_A_PROCESS):
        count = min(_IMAGES_A_PROCESS, trials - start)
        try:
            check_images(count, seed * 1_000_000 + start)
            survived += count
        except AssertionError as error:  # the rest of the process' images were not read
            failures.append(str(error))
    return Outcome("20-23: malformed images", trials, survived, tuple(failures))


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
