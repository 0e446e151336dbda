"""`encode a gallery`: images a second of the whole build, beside the bare backbone's."""

from __future__ import annotations

import shutil

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.floors import bare_backbone
from benchmarks.speed.row import Row
from benchmarks.speed.timing import paired
from indexer.build import build_index
from indexer.store import open_store
from training.checkpoint import load_checkpoint

_BATCH = 64
_BATCH_ON_GPU = 256


def torch_rows(bench: Bench) -> list[Row]:
    """One row: decoding, backbone, maps, P, predictions and storing, by torch."""
    return [_row(bench, "torch")]


def onnx_rows(bench: Bench) -> list[Row]:
    """One row: the same by ONNX Runtime, against the backbone by torch."""
    return [_row(bench, "onnx")]


def int8_rows(bench: Bench) -> list[Row]:
    """One row: the same with the backbone in int8."""
    return [_row(bench, "onnx-int8")]


def _row(bench: Bench, runtime: str) -> Row:
    checkpoint = load_checkpoint(open_store(bench.source).model_folder, bench.device)
    dataset = bench.images()
    rows = bench.readable_rows(bench.encode_images)
    batch = _BATCH if bench.device == "cpu" else _BATCH_ON_GPU
    bare = bare_backbone(checkpoint.model, checkpoint.preprocessing.size, batch, bench.device)
    out = bench.work / "encoded"
    seconds: list[float] = []

    def encode(number: int) -> None:
        shutil.rmtree(out, ignore_errors=True)
        report = build_index(
            dataset, rows, checkpoint, out, (), bench.device, batch, runtime=runtime
        )
        seconds.append(report.encode_seconds)

    times = paired(encode, lambda number: bare(len(rows)), bench.repeats)
    shutil.rmtree(out, ignore_errors=True)
    # Of the build the encoding alone counts; the first, untimed one is left out.
    pairs = list(zip(seconds[1:], times.floors, strict=True))
    rates = np.array([(len(rows) / own, len(rows) / floor) for own, floor in pairs])
    return Row(
        what=f"encode a gallery, {runtime}",
        size=len(rows),
        value=float(np.median(rates[:, 0])),
        unit="images/s",
        floor=float(np.median(rates[:, 1])),
        ratio=float(np.median(rates[:, 0] / rates[:, 1])),
        against="the bare backbone by torch, channels-last, on images that are decoded already",
        repeats=bench.repeats,
        details={
            "backbone": checkpoint.model.config.backbone,
            "image_size": checkpoint.preprocessing.size,
            "batch": batch,
        },
    )
