"""What every operation of the index costs, from a thousand images to millions.

    retrieve bench speed --index indexes/shop --dataset data/shop

Galleries of every size are made from a real index by perturbing its trained maps. Each figure
stands beside its floor, the least that the machine could do it in, measured in the same run. The
results file keeps the rows of earlier runs, so that a table can be filled in several sittings.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from benchmarks.speed.bench import Bench
from benchmarks.speed.result import describe, merge, read_results, stem
from benchmarks.speed.row import Row
from benchmarks.speed.rows import ROWS
from benchmarks.speed.speed_chart import draw_chart
from benchmarks.speed.speed_markdown import markdown
from benchmarks.write_results import RESULTS, write_results
from indexer.device import choose_device
from retrieval.build_progress import BuildProgress
from retrieval.console import print_json, stderr
from retrieval.engine import Engine
from training.allocator import keep_freed_memory
from training.errors import UsageError


def _sizes(context: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Numbers of images, separated by commas: `1000,253983`; ascending, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(
            f"--{(option.name or '').replace('_', '-')} {text!r}: name sizes from 1 on, separated "
            "by commas, such as 1000,20000"
        )
    return tuple(sorted({int(part) for part in parts}))


@click.command("speed")
@click.option("--index", "source", required=True, type=click.Path(path_type=Path), help="Real one.")
@click.option("--dataset", help="Images to query with and to encode [default: the index's].")
@click.option("--sizes", callback=_sizes, default="1000,5000,20000", show_default=True)
@click.option(
    "--index-sizes",
    callback=_sizes,
    default="20000,100000",
    show_default=True,
    help="Vectors of the index alone.",
)
@click.option(
    "--build-sizes",
    callback=_sizes,
    default="2000,4000,8000",
    show_default=True,
    help="Images of the galleries that are built to measure memory.",
)
@click.option("--rows", metavar="A,B", help=f"Of {', '.join(ROWS)} [default: all].")
@click.option("--encode-images", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--combinations", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("runs/speed"),
    show_default=True,
    help="Keeps the galleries that are made, 26 KB an image and 1 KB an image and attribute.",
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    source: Path,
    dataset: str | None,
    sizes: tuple[int, ...],
    index_sizes: tuple[int, ...],
    build_sizes: tuple[int, ...],
    rows: str | None,
    encode_images: int,
    queries: int,
    combinations: int,
    repeats: int,
    seed: int,
    work: Path,
    results: Path,
    device: str,
    as_json: bool,
) -> None:
    """Measure every operation beside its floor, at several sizes."""
    chosen = list(ROWS) if rows is None else [name.strip() for name in rows.split(",")]
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        raise UsageError(f"unknown rows {', '.join(unknown)!r}; choose from {', '.join(ROWS)}")
    keep_freed_memory()
    place = choose_device(device).device
    engine = Engine.open(source, place)
    settings = {"queries": queries, "combinations": combinations, "repeats": repeats, "seed": seed}
    settings["threads"] = torch.get_num_threads()
    now = describe(engine.store, engine.model, place)
    name = stem(place)
    data = read_results(results / f"{name}.json")
    if data is not None:
        data = merge(data, now, [])  # before anything is measured: whether they go together
    with BuildProgress(stderr) as progress:
        bench = Bench(
            source,
            dataset,
            work,
            sizes,
            index_sizes,
            build_sizes,
            encode_images,
            queries,
            combinations,
            repeats,
            seed,
            place,
            progress,
        )
        for group in chosen:
            found = ROWS[group](bench)
            for row in found:
                progress.say(_line(row))
            data = merge(data, now, found, settings)
            write_results(results, name, data, markdown(data))  # what is done is not lost
    assert data is not None
    draw_chart(data, results / f"{name}.png")
    if as_json:
        print_json(data)
    else:
        click.echo(markdown(data))


def _line(row: Row) -> str:
    size = "" if row.size is None else f" of {row.size:,}"
    ratio = "" if row.ratio is None else f", {row.ratio:.2f} x the floor"
    recall = "" if row.recall is None else f", recall {row.recall:.3f}"
    return f"{row.what}{size}: {row.value:.4g} {row.unit}{ratio}{recall}"
