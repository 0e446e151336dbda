"""What storing an image costs: bytes, MAP on `valid`, and the time of the head over the store.

    retrieve bench store --dataset data/fashion-products --checkpoint "d 512=runs/a" \\
        --checkpoint "d 512=runs/b" --checkpoint "d 128=runs/c"

Each model is trained with its own `dim` and `grid` (`benchmarks/tables/stored-map.toml`); runs of
one name are its training seeds. As in the engine, a query's embedding comes from the float32 map
that the model gives and the gallery's from stored maps; every image queries all others (by the
published lists where the dataset has some) under each attribute's type condition. The cosine is
that of an image's embedding from its stored and from its float32 map, over all type conditions.
Writes the figures to `benchmarks/results/`.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import commit_name, machine_name
from benchmarks.named_runs import named_run
from benchmarks.split_images import (
    EACH_OTHER,
    SplitImages,
    encode_all,
    load_for,
    maps_embed,
    read_split,
    who_asks,
)
from benchmarks.storage_forms import FORMS, StorageForm, Stored, bytes_an_image
from benchmarks.tables.keys import data_hash
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.write_results import RESULTS, split_suffix, write_results
from retrieval.console import print_json
from retrieval.dataset_options import dataset_options
from retrieval.evaluation.attribute_map import evaluate_attributes
from training.allocator import keep_freed_memory
from training.checkpoint import Checkpoint, load_checkpoint
from training.models.conditioned import ConditionedEmbedder

ROUNDS = 5
_TIMED = 256  # images a pass of the head: their maps stay out of the caches


@click.command("store")
@dataset_options
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="NAME=RUN",
    help="Repeat; runs of one name are seeds.",
)
@click.option("--split", default="valid", show_default=True, help="train, valid, test or all.")
@click.option("--images", type=click.IntRange(min=2), help="At most so many, drawn.")
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    checkpoints: tuple[str, ...],
    split: str,
    images: int | None,
    rounds: int,
    workers: int,
    results: Path,
    as_json: bool,
) -> None:
    """Measure every storage form with every model."""
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for title, run in map(named_run, checkpoints):
        loaded = load_checkpoint(run)
        dataset = load_for(name, root, loaded.schema)
        chosen = read_split(dataset, split, loaded.preprocessing, images, workers)
        rows += measure(title, loaded, chosen, split, rounds)
    data = {
        "dataset": dataset.name,
        "data_hash": data_hash(dataset),
        "split": split,
        "queries": who_asks(chosen.dataset, split),
        "images": len(chosen.pixels),
        "machine": machine_name("cpu"),
        "commit": commit_name(),
        "rounds": rounds,
        "rows": rows,
    }
    backbone = loaded.model.config.backbone
    stem = f"store-{dataset.name}-{backbone}{split_suffix(split, 'valid')}"
    write_results(results, stem, data, markdown(data))
    if as_json:
        print_json(data)
    else:
        click.echo(markdown(data))


def measure(
    title: str, loaded: Checkpoint, chosen: SplitImages, split: str, rounds: int
) -> list[dict[str, Any]]:
    """The figures of one model, one row a form and way of getting P.

    Args:
        title: of the model.
        loaded: the model.
        chosen: the images.
        split: their name, as `evaluate_attributes` wants it.
        rounds: how often the head is timed.
    """
    model = loaded.model
    exact = encode_all(loaded, chosen.pixels, title)
    queries = maps_embed(model, lambda rows: (exact[torch.from_numpy(rows)], None))
    types = [loaded.schema.type_condition(n) for n in range(len(loaded.schema.attributes))]
    every = np.arange(len(exact))
    right = [queries(condition, every) for condition in types]
    out = []
    for form in FORMS:
        for stored_keys in (True, False):

            def read(
                rows: NDArray[np.int64], form: StorageForm = form, both: bool = stored_keys
            ) -> tuple[Tensor, Tensor | None]:
                maps = exact[torch.from_numpy(rows)]
                return form.round(maps), form.round(model.keys(maps)) if both else None

            embed = maps_embed(model, read)
            report = evaluate_attributes(
                chosen.dataset, split, "type", embed, embed_queries=queries
            )
            pairs = zip(types, right, strict=True)
            cosines = np.stack([(embed(c, every) * z).sum(1) for c, z in pairs])
            one = bytes_an_image(form.store(exact[:1]))
            out.append(
                {
                    "model": title,
                    "dim": model.dim,
                    "grid": list(model.grid),
                    "form": form.name,
                    "keys": "stored" if stored_keys else "recomputed",
                    "bytes_an_image": int(one * (2 if stored_keys else 1)),
                    "map": round(report.all.map, 3),
                    "map_ci": [round(report.all.ci.low, 3), round(report.all.ci.high, 3)],
                    "cosine_min": round(float(cosines.min()), 6),
                    "cosine_mean": round(float(cosines.mean()), 6),
                }
            )
    seconds = time_head(model, exact[:_TIMED], rounds)
    for row, took in zip(out, seconds, strict=True):
        row["seconds_per_10000"] = round(took, 4)
    return out


def time_head(model: ConditionedEmbedder, maps: Tensor, rounds: int) -> list[float]:
    """Seconds that loading stored maps and the head take for 10,000 images under one condition.

    Args:
        model: the embedder.
        maps: I of some images [B, d, H, W] float32, which are gone through in one go.
        rounds: of which the median is taken; all ways take turns.

    Returns:
        One figure a form with P stored, then recomputed, in the order of `FORMS`.
    """
    ways: list[tuple[StorageForm, Stored, Stored | None]] = []
    with torch.inference_mode():
        keys = model.keys(maps)
        for form in FORMS:
            kept, kept_keys = form.store(maps), form.store(keys)
            ways += [(form, kept, kept_keys), (form, kept, None)]
        state = model.type_conditions[:1]
        took: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds + 1):  # the first warms up
            for times, (form, own, own_keys) in zip(took, ways, strict=True):
                started = time.perf_counter()
                loaded = form.load(own, model.grid)
                given = None if own_keys is None else form.load(own_keys, model.grid)
                model.attend(loaded, state, given)
                times.append(time.perf_counter() - started)
    return [statistics.median(times[1:]) / len(maps) * 10_000 for times in took]


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["model", "d", "cells", "stored as", "P", "bytes an image", "MAP", "95 % interval"]
    header += ["seeds", "cosine, mean", "cosine, least", "head, s per 10,000"]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in data["rows"]:
        groups.setdefault((row["model"], row["form"], row["keys"]), []).append(row)
    rows = []
    for (model, form, keys), seeds in groups.items():
        height, width = seeds[0]["grid"]
        found = [row["map"] for row in seeds]
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        low, high = (statistics.mean(row["map_ci"][end] for row in seeds) for end in (0, 1))
        cells = [model, str(seeds[0]["dim"]), f"{height} x {width}", form, keys]
        cells += [f"{seeds[0]['bytes_an_image']:,}", f"{statistics.mean(found):.2f}{spread}"]
        cells += [f"{low:.2f} to {high:.2f}", str(len(seeds))]
        cells.append(f"{statistics.mean(row['cosine_mean'] for row in seeds):.6f}")
        cells.append(f"{min(row['cosine_min'] for row in seeds):.6f}")
        took = statistics.median(row["seconds_per_10000"] for row in seeds)
        rows.append([*cells, f"{took:.2f}"])
    lines = markdown_grid(header, rows)
    asks = data.get("queries", EACH_OTHER)  # results before it was told are leave-one-out
    lines += [
        "",
        f"MAP over all queries under type conditions, {data['images']:,} images of "
        f"{data['dataset']} ({data['split']}), {asks}: the query from float32 "
        "maps, the gallery from stored ones; ±: standard deviation over training seeds, whose "
        "intervals are averaged. Cosine of embeddings from stored and float32 maps. "
        f"Head: torch, maps in memory, median of {data['rounds']} rounds on {data['machine']}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command()
