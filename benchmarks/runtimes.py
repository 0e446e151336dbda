"""What encodes a gallery how fast on a CPU, and what MAP its descriptors lose.

    retrieve bench runtimes --dataset data/fashion-products --checkpoint runs/a

Torch channels-last, the same with batch norms folded (which is what a build runs), in its plain
memory order and with the backbone in bfloat16, ONNX Runtime in float32 and with the backbone in
int8 encode the same batch, taking turns, each as a build does: some images a core. The ratio is
that of a round's two rates, its median over the rounds. The whole model is timed, normalising
included, decoding and storing not. MAP is the index's: the gallery's descriptors by each runtime,
the query's picture by torch in float32; every image of the split queries all others (by the
published lists where the dataset has some), compared by one attribute after the other. Writes the
figures to `benchmarks/results/`.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.machine import commit_name, machine_name, vector_instructions
from benchmarks.split_images import (
    EACH_OTHER,
    SplitImages,
    load_for,
    read_split,
    who_asks,
)
from benchmarks.tables.keys import data_hash
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.write_results import RESULTS, split_suffix, write_results
from indexer.calibration_images import calibration_images
from indexer.choose_forward import fused_forward
from indexer.encode import EncodedBatch, Forward, encode, torch_forward
from indexer.onnx_runtime import exported_model, int8_ranges, onnx_forward, onnx_int8_forward
from retrieval.console import print_json
from retrieval.dataset_options import dataset_options
from retrieval.evaluation.attribute_map import Embed, MapReport, evaluate_attributes
from retrieval.progress_bars import CountBar
from retrieval.query_vector import formula_of
from training.allocator import keep_freed_memory
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets.dataset import Dataset
from training.descriptor import Bytes
from training.models.conditioned import Described
from training.models.embedder import Embedder
from training.schema import Condition

BASE = "torch, channels-last"
FUSED = "torch, batch norms folded"
ROUNDS = 9


@click.command("runtimes")
@dataset_options
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), metavar="RUN")
@click.option("--split", default="valid", show_default=True, help="train, valid, test or all.")
@click.option("--images", type=click.IntRange(min=2), help="At most so many, drawn.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    checkpoint: Path,
    split: str,
    images: int | None,
    batch_size: int,
    rounds: int,
    workers: int,
    results: Path,
    as_json: bool,
) -> None:
    """Time every runtime and measure the MAP of its descriptors."""
    keep_freed_memory()
    loaded = load_checkpoint(checkpoint)
    dataset = load_for(name, root, loaded.schema)
    chosen = read_split(dataset, split, loaded.preprocessing, images, workers)
    forwards = all_forwards(loaded, dataset)
    rates = time_rounds(forwards, loaded, chosen.pixels[:batch_size], rounds)
    reports = measure_map(forwards, loaded, chosen, split)
    model = loaded.model
    data = {
        "dataset": dataset.name,
        "data_hash": data_hash(dataset),
        "split": split,
        "queries": who_asks(chosen.dataset, split),
        "images": len(chosen.pixels),
        "machine": machine_name("cpu"),
        "threads": torch.get_num_threads(),
        "commit": commit_name(),
        "checkpoint_hash": loaded.hash,
        "backbone": model.config.backbone,
        "size": loaded.preprocessing.size,
        "batch_size": min(batch_size, len(chosen.pixels)),
        "rounds": rounds,
        "rows": to_rows(rates, reports),
    }
    stem = f"runtimes-{dataset.name}-{model.config.backbone}-{vector_instructions().casefold()}"
    stem += split_suffix(split, "valid")
    write_results(results, stem, data, markdown(data))
    if as_json:
        print_json(data)
    else:
        click.echo(markdown(data))


def all_forwards(loaded: Checkpoint, dataset: Dataset) -> dict[str, Forward]:
    """The model by every runtime, the base first; raises ResourceError."""
    model, size = loaded.model, loaded.preprocessing.size
    plain = copy.deepcopy(model)

    def eager(images: Tensor) -> Described:
        return plain.describe(plain.trunk(images.contiguous()))

    sample = calibration_images(dataset.root, dataset.paths, loaded.preprocessing)
    exported, onnx = exported_model(model, size), onnx_forward(model, size)
    int8 = onnx_int8_forward(model, exported, int8_ranges(exported, sample), sample)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # On a CPU without instructions for it bfloat16 is emulated: slow, with what a GPU gives.
    half = torch_forward(model, "bfloat16")
    return {
        BASE: torch_forward(model),
        FUSED: fused_forward(model),
        "torch": eager,
        "torch, bfloat16": half,
        "onnx": onnx,
        "onnx-int8": int8,
    }


def time_rounds(
    forwards: dict[str, Forward], loaded: Checkpoint, pixels: NDArray[np.uint8], rounds: int
) -> dict[str, list[float]]:
    """Images a second of each runtime on one batch uint8 [B, 3, S, S], one figure a round.

    Each runs as in a build: some images a core, normalised before.
    """
    rates: dict[str, list[float]] = {name: [] for name in forwards}
    for number in range(rounds + 1):
        for name, forward in forwards.items():
            started = time.perf_counter()
            encode(forward, pixels, loaded.preprocessing, "cpu")
            if number:  # the first round warms up
                rates[name].append(len(pixels) / (time.perf_counter() - started))
    return rates


def measure_map(
    forwards: dict[str, Forward], loaded: Checkpoint, chosen: SplitImages, split: str
) -> dict[str, MapReport]:
    """MAP of each runtime's descriptors, the queries being the base's, not rounded."""
    queries, reports = None, {}
    for name, forward in forwards.items():
        found = _encode_all(forward, loaded, chosen.pixels, name)
        queries = queries or found  # the base is the first
        descriptors = loaded.model.layout.pack(found.chances, found.nuance)
        reports[name] = evaluate_attributes(
            chosen.dataset,
            split,
            "type",
            as_stored(descriptors),
            embed_queries=as_asked(loaded.model, queries),
        )
    return reports


def as_stored(descriptors: Bytes) -> Embed:
    """A gallery's side of the inner product: its descriptors [M, width], as they are."""
    return lambda condition, rows: descriptors[rows].astype(np.float32)


def as_asked(model: Embedder, encoded: EncodedBatch) -> Embed:
    """A query's side: the query vector of likeness in the attribute of a type condition."""
    layout, schema = model.layout, model.schema

    def embed(condition: Condition, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        named = np.unique(schema.attribute_of[np.flatnonzero(condition)]).tolist()
        vectors = [
            formula_of(layout, schema, encoded.chances[row], encoded.nuance[row], like=named).vector
            for row in rows
        ]
        return np.stack([vector.weights for vector in vectors])

    return embed


def _encode_all(
    forward: Forward, loaded: Checkpoint, pixels: NDArray[np.uint8], name: str
) -> EncodedBatch:
    parts: list[EncodedBatch] = []
    with CountBar(f"encoding by {name}", len(pixels)) as bar:
        for start in range(0, len(pixels), 32):
            piece = pixels[start : start + 32]
            parts.append(encode(forward, piece, loaded.preprocessing, "cpu"))
            bar(len(piece))
    return EncodedBatch(
        np.concatenate([part.chances for part in parts]),
        np.concatenate([part.nuance for part in parts]),
    )


def to_rows(rates: dict[str, list[float]], reports: dict[str, MapReport]) -> list[dict[str, Any]]:
    """One row a runtime; `loss` in points of MAP against the base."""
    best = reports[BASE].all.map
    return [
        {
            "runtime": name,
            "images_per_second": round(statistics.median(own), 2),
            "ratio": round(
                statistics.median(a / b for a, b in zip(own, rates[BASE], strict=True)), 3
            ),
            "map": round(reports[name].all.map, 3),
            "map_ci": [round(reports[name].all.ci.low, 3), round(reports[name].all.ci.high, 3)],
            "loss": round(best - reports[name].all.map, 3),
        }
        for name, own in rates.items()
    ]


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["runtime", "images/s", "times channels-last", "MAP", "95 % interval", "loss, points"]
    rows = []
    for row in data["rows"]:
        low, high = row["map_ci"]
        cells = [row["runtime"], f"{row['images_per_second']:.1f}", f"{row['ratio']:.2f}"]
        cells += [f"{row['map']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['loss']:.2f}"]
        rows.append(cells)
    lines = markdown_grid(header, rows)
    asks = data.get("queries", EACH_OTHER)  # results before it was told are leave-one-out
    lines += [
        "",
        f"{data['backbone']}, {data['size']} px, batches of {data['batch_size']}, "
        f"{data['threads']} threads, medians of {data['rounds']} rounds in turns on "
        f"{data['machine']}. MAP over all queries under type conditions, {data['images']:,} images "
        f"of {data['dataset']} ({data['split']}), {asks}: the query by torch in "
        "float32, the gallery's descriptors by the runtime.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command()
