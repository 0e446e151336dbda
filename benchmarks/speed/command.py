"""`retrieve bench speed`: requests, bytes, memory and building, from a thousand images to millions.

    retrieve bench speed --index INDEX --sizes 1000,253983,10000000

Galleries are drawn from the descriptors of INDEX, see `drawn_gallery`. Rows that another run on
this machine measured at other sizes are kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import commit_name, cores, machine_name, vector_instructions
from benchmarks.speed.drawn_gallery import Images, export_gallery, images_of, made_images
from benchmarks.speed.measure import Row, index_bytes, measure_requests, memory_row
from benchmarks.speed.speed_markdown import draw_chart, markdown
from benchmarks.write_results import RESULTS, write_results
from indexer.manifest import Manifest
from indexer.store import Store, open_store
from retrieval.console import Bars, stderr
from retrieval.drawn_requests import draw_requests
from retrieval.engine import Engine
from training.descriptor import DescriptorLayout
from training.errors import UsageError
from training.models.config import ModelConfig
from training.schema import Attribute, Schema

SIZES = (1_000, 10_000, 100_000, 253_983, 1_000_000, 2_000_000, 10_000_000)

DARN = (20, 56, 13, 10, 27, 12, 16, 12, 19)
"""Values of the nine attributes of DARN, of which nobody has the pictures here: 185 in all."""

_DARN_SIZE = 10_000


@click.command("speed")
@click.option("--index", "source", required=True, type=click.Path(path_type=Path))
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, metavar="N,N,...")
@click.option("--work", default="speed", show_default=True, type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def command(source: Path, sizes: str, work: Path, results: Path) -> None:
    """Time requests to galleries of many sizes, and what building and keeping them takes."""
    counts = _sizes(sizes)
    real = open_store(source)
    images = images_of(real)
    stem = f"speed-cpu-{cores()}-cores-{vector_instructions().casefold()}"
    rows = made_layout_rows(real.manifest, work)
    for size in counts:
        rows += gallery_rows(real, images, size, work)
        data = _merged(results / f"{stem}.json", rows)
        write_results(results, stem, data, markdown(data))
        draw_chart(data["rows"], results / f"{stem}.png")
    click.echo(markdown(data))


def gallery_rows(real: Store, images: Images, size: int, work: Path) -> list[Row]:
    """Draw, export, index and measure a gallery; it is removed again.

    Args:
        real: the index to draw from.
        images: its images.
        size: of the gallery.
        work: folder to work in.
    """
    folder = work / str(size)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Bars() as progress:
            cost = export_gallery(
                real.manifest, images, size, folder, real.model_folder, draw_requests, progress
            )
        engine = Engine.open(folder, "cpu")
        rows = measure_requests(engine, lambda text: stderr.print(f"{size:,}: {text}"))
        width = engine.store.layout.width
        per_image = index_bytes(engine.store)
        values = engine.schema.size
        del engine  # its memory is not the measured process'
        rows += [
            Row(f"index bytes an image, {values} values", size, per_image, "bytes", width),
            memory_row(folder, size, size * width),
            Row("build: export", size, cost.export, "s"),
            Row("build: search", size, cost.search, "s"),
            Row("build", size, cost.export + cost.search, "s"),
        ]
        return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made_layout_rows(draft: Manifest, work: Path) -> list[Row]:
    """Bytes an image with DARN's attributes and the nuance that a model has by default."""
    schema = Schema(
        tuple(
            Attribute(f"attribute {number}", tuple(f"value {number} {n}" for n in range(count)))
            for number, count in enumerate(DARN)
        )
    )
    config = ModelConfig()
    groups = [(number, config.nuance) for number in range(len(DARN))]
    layout = DescriptorLayout(schema.size, (*groups, (-1, config.garment_nuance)))
    images = made_images(layout, schema, 1000)
    made = replace(
        draft,
        identity=replace(draft.identity, layout=layout),
        schema=schema.to_json(),
        shards=(),
        gallery=None,
    )
    folder = work / "made"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Bars() as progress:
            export_gallery(made, images, _DARN_SIZE, folder, None, draw_requests, progress)
        found = index_bytes(open_store(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"index bytes an image, {schema.size} values"
    return [Row(what, _DARN_SIZE, found, "bytes", layout.width, found / layout.width)]


def _sizes(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--sizes takes whole numbers, such as 1000,253983, not {text!r}"
        ) from error
    if min(counts) < 100:
        raise UsageError(f"--sizes must be at least 100, not {min(counts)}")
    return counts


def _merged(path: Path, rows: list[Row]) -> dict[str, Any]:
    """The rows, and those of an earlier result that were not measured now."""
    fresh = [{name: _rounded(value) for name, value in asdict(row).items()} for row in rows]
    commit = commit_name()
    fresh = [row | {"commit": commit} for row in fresh]
    there = {(row["what"], row["size"]) for row in fresh}
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    old = [row for row in old if (row["what"], row["size"]) not in there]
    ordered = sorted(old + fresh, key=lambda row: int(row["size"]))
    return {"machine": machine_name("cpu"), "commit": commit, "rows": ordered}


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    command()
