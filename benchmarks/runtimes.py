"""What encodes a gallery how fast on a CPU, and what MAP its descriptors lose.

    retrieve bench runtimes --dataset data/fashion-products --checkpoint runs/a

All runtimes encode one batch in turns, some images a core as in a build, normalising included,
decoding not; the ratio is the median over the rounds of two rates of one round. MAP is under type
conditions: the gallery's descriptors by each runtime, the query by torch channels-last.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Bench, Data, Result, bench_command, table, vector_instructions
from benchmarks.tables.keys import data_hash
from indexer.encode.encode import Forward, encode
from indexer.encode.forward import choose_forward
from retrieval.evaluation.attribute_map import MapReport, evaluate_attributes
from retrieval.evaluation.encoded_split import align_dataset
from retrieval.evaluation.scorer import DescriptorScorer
from retrieval.options import COUNT, DatasetOptions
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets.dataset import Dataset
from training.device import has_fast_bfloat16, keep_freed_memory
from training.errors import DataError, UsageError
from training.images.batches import read_batches
from training.threads import threads

BASE = "torch, channels-last"


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    header = ["runtime", "images/s", "times channels-last", "MAP", "95 % interval", "loss, points"]
    rows = []
    for row in data["rows"]:
        speed = [row["runtime"], f"{row['images_per_second']:.1f}", f"{row['ratio']:.2f}"]
        interval = "{:.2f} to {:.2f}".format(*row["map_ci"])
        rows.append([*speed, f"{row['map']:.2f}", interval, f"{row['loss']:.2f}"])
    return table(
        header,
        rows,
        f"{data['backbone']}, {data['size']} px, batches of {data['batch_size']}, "
        f"{data['threads']} threads, medians of {data['rounds']} rounds in turns on "
        f"{data['machine']}. MAP of {data['images']:,} images of {data['dataset']} "
        f"({data['split']}): the query by torch, the gallery's descriptors by the runtime.",
    )


@dataclass(frozen=True, kw_only=True)
class Options(Bench, DatasetOptions):
    """What is encoded, and how often."""

    checkpoint: Annotated[Path, "The trained model."]
    split: Annotated[str, "train, valid, test or all."] = "valid"
    images: Annotated[int | None, click.IntRange(min=2), "At most so many, drawn."] = None
    batch_size: Annotated[int, COUNT] = 64
    rounds: Annotated[int, COUNT] = 9


@bench_command("runtimes", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Time every runtime and measure the MAP of its descriptors."""
    keep_freed_memory()
    loaded, split = load_checkpoint(options.checkpoint), options.split
    dataset = align_dataset(options.load(loaded.schema), loaded.schema).dataset
    part, pixels = read_split(dataset, split, loaded, options.images)
    forwards = all_forwards(loaded)
    batch = pixels[: options.batch_size]
    rates = time_rounds(forwards, batch, options.rounds)
    backbone = loaded.config.backbone
    yield (
        f"runtimes-{dataset.name}-{backbone}-{vector_instructions().casefold()}",
        {
            "dataset": dataset.name,
            "data": data_hash(dataset),
            "split": split,
            "images": len(pixels),
            "threads": threads(),
            "checkpoint_hash": loaded.hash,
            "backbone": backbone,
            "size": loaded.preprocessing.size,
            "batch_size": len(batch),
            "rounds": options.rounds,
            "rows": to_rows(rates, measure_map(forwards, loaded, part, pixels, split)),
        },
    )


def read_split(
    dataset: Dataset, split: str, loaded: Checkpoint, images: int | None
) -> tuple[Dataset, NDArray[np.uint8]]:
    """Images of a split, at most `images` of them, drawn: labels and pixels [M, 3, S, S].

    Raises UsageError: no image is in the split; DataError: none of them can be read.
    """
    rows = dataset.rows_of(split)
    if not len(rows):
        raise UsageError(f"no image in split {split!r} of {dataset.name}")
    if images is not None and images < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, images, replace=False))
    batches = [rows[start : start + 64].tolist() for start in range(0, len(rows), 64)]
    read = list(read_batches(dataset.root, dataset.paths, batches, loaded.preprocessing, 0))
    good = [row for batch in read for row in batch.good]
    if not good:
        raise DataError(f"no image of split {split!r} in {dataset.root} can be read")
    return dataset.subset(np.array(good)), np.concatenate([batch.pixels for batch in read])


def all_forwards(loaded: Checkpoint) -> dict[str, Forward]:
    """The model by every runtime, the base first; raises DataError if it was not exported."""
    out = {
        BASE: choose_forward(loaded, "torch", "float32", "cpu"),
        "onnx": choose_forward(loaded, "onnx", "float32", "cpu"),
        "onnx-int8": choose_forward(loaded, "onnx-int8", "int8", "cpu"),
    }
    if has_fast_bfloat16("cpu"):
        out["torch, bfloat16"] = choose_forward(loaded, "torch", "bfloat16", "cpu")
    return out


def time_rounds(
    forwards: dict[str, Forward], pixels: NDArray[np.uint8], rounds: int
) -> dict[str, list[float]]:
    """Images a second of each runtime on one batch [B, 3, S, S], one figure a round."""
    rates: dict[str, list[float]] = {name: [] for name in forwards}
    for number in range(rounds + 1):
        for name, forward in forwards.items():
            started = time.perf_counter()
            encode(forward, pixels)
            if number:  # the first round warms up
                rates[name].append(len(pixels) / (time.perf_counter() - started))
    return rates


def measure_map(
    forwards: dict[str, Forward],
    loaded: Checkpoint,
    dataset: Dataset,
    pixels: NDArray[np.uint8],
    split: str,
) -> dict[str, MapReport]:
    """MAP of each runtime's descriptors, asked by the base's."""
    layout, scorers = loaded.layout, {}
    for name, forward in forwards.items():
        packed = []
        for start in range(0, len(pixels), 32):
            batch = encode(forward, pixels[start : start + 32])
            packed.append(layout.pack(batch.chances, batch.nuance))
        scorers[name] = DescriptorScorer(layout, loaded.schema, np.concatenate(packed))
    asking = scorers[BASE].embed_queries
    return {
        name: evaluate_attributes(dataset, split, "type", one.embed, embed_queries=asking)
        for name, one in scorers.items()
    }


def to_rows(rates: dict[str, list[float]], reports: dict[str, MapReport]) -> list[Data]:
    """One row a runtime; `loss` in points of MAP against the base."""
    rows = []
    for name, own in rates.items():
        found = reports[name].all
        ratio = statistics.median(a / b for a, b in zip(own, rates[BASE], strict=True))
        rows.append(
            {
                "runtime": name,
                "images_per_second": round(statistics.median(own), 2),
                "ratio": round(ratio, 3),
                "map": round(found.map, 3),
                "map_ci": [round(found.ci.low, 3), round(found.ci.high, 3)],
                "loss": round(reports[BASE].all.map - found.map, 3),
            }
        )
    return rows
