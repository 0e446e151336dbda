"""`retrieve bench speed`: requests, bytes, memory and building, from a thousand images to millions.

    retrieve bench speed --index INDEX --size 1000 --size 253983

Galleries are drawn from the descriptors of INDEX, see `drawn_gallery`. Rows that another run on
this machine measured at other sizes are kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import click

from benchmarks.common import (
    Data,
    Result,
    WorkBench,
    bench_command,
    commit_name,
    table,
    vector_instructions,
)
from benchmarks.speed.cold import cold_rows, warm_rows
from benchmarks.speed.drawn_gallery import Images, export_gallery, images_of
from benchmarks.speed.measure import Row, index_bytes, measure_requests, memory_row
from indexer.store.store import Store, open_store
from retrieval.console import Bars, stderr
from retrieval.engine import Engine
from retrieval.options import PATH
from retrieval.query_vector import draw_requests
from training.threads import cores

SIZES = (1_000, 10_000, 100_000, 253_983, 1_000_000, 2_000_000, 10_000_000)


def gallery_rows(real: Store, images: Images, size: int, folder: Path) -> list[Row]:
    """Draw, export, index and measure a gallery of those of `real`; remove it again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Bars() as progress:
            seconds = export_gallery(
                real.manifest, images, size, folder, real.model_folder, draw_requests, progress
            )
        engine = Engine.open(folder, "cpu")
        rows = measure_requests(engine, lambda text: stderr.print(f"{size:,}: {text}"))
        width, values = engine.store.layout.width, engine.schema.size
        what = f"index bytes an image, {values} values"
        rows.append(Row(what, size, index_bytes(engine.store), "bytes", width))
        value = engine.schema.value_names[0]
        there = (path for name in real.paths if (path := real.root / name).is_file())
        pictures = list(islice(there, 100))
        rows += warm_rows(engine, pictures)
        del engine  # its memory is not the measured process'
        rows += [memory_row(folder, size, size * width), Row("build", size, seconds, "s")]
        return rows + cold_rows(folder, size, pictures[0], value)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _merged(path: Path, rows: list[Row]) -> list[Data]:
    """The rows, and those of an earlier result that were not measured now."""
    commit = commit_name()
    fresh = [asdict(row) | {"commit": commit} for row in rows]
    for row in fresh:
        for name in ("value", "floor", "ratio", "recall"):
            row[name] = None if row[name] is None else float(f"{row[name]:.5g}")
    there = {(row["what"], row["size"]) for row in fresh}
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    fresh += [row for row in old if (row["what"], row["size"]) not in there]
    return sorted(fresh, key=lambda row: int(row["size"]))


def markdown(data: Data) -> str:
    """The figures as Markdown."""

    def cell(figure: float | None, unit: str) -> str:
        if figure is None:
            return ""
        return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.3g} {unit}"

    header = ["what", "images", "value", "floor", "times the floor", "recall@10"]
    order = list(dict.fromkeys(row["what"] for row in data["rows"]))
    rows = sorted(data["rows"], key=lambda row: (order.index(row["what"]), row["size"]))
    cells = [
        [
            row["what"],
            f"{row['size']:,}",
            cell(row["value"], row["unit"]),
            cell(row["floor"], row["unit"]),
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            "" if row["recall"] is None else f"{row['recall']:.3f}",
        ]
        for row in rows
    ]
    commits = ", ".join(sorted({row["commit"] for row in data["rows"]}))
    return table(
        header,
        cells,
        f"{data['machine']}; commit {commits}. Galleries are drawn from the descriptors of real "
        "images. Medians; pictures are encoded already. `any combination` reads every descriptor "
        "(where there are inverted lists, the search alone is timed); its floor is one plain "
        "reading of the descriptors' bytes by all cores, in turns with it. Of filters the search "
        "alone is timed, the slowest of five of each share; recall is that of the worst. A cold "
        "start is a new process, beside one that imports numpy, onnxruntime and faiss alone.",
    )


_INDEX = click.option("--index", "source", required=True, type=PATH)
_SIZES = click.option("--size", "sizes", multiple=True, type=click.IntRange(100), default=SIZES)


@dataclass(frozen=True, kw_only=True)
class Options(WorkBench):
    """Which index galleries are drawn from, and of how many images."""

    source: Annotated[Path, _INDEX]
    sizes: Annotated[tuple[int, ...], _SIZES]
    work: Annotated[Path, "Folder of the galleries, each removed again."] = Path("speed")


@bench_command("speed", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Time requests to galleries of many sizes, and what building and keeping them takes."""
    real = open_store(options.source)
    images = images_of(real)
    stem = f"speed-cpu-{cores()}-cores-{vector_instructions().casefold()}"
    for size in options.sizes:
        rows = gallery_rows(real, images, size, options.work / str(size))
        yield stem, {"rows": _merged(options.results / f"{stem}.json", rows)}
