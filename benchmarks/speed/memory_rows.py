"""`build peak memory beyond the model`: galleries of growing size, one process each.

The images are few and rendered, the backbone is small, so that a quarter of a million take
minutes; maps, P, shards and views are of full size, and only these could make memory grow. What
counts is anonymous memory; the index's own files are mapped while views are made of them, and those
pages, told beside it, the kernel takes back when it needs them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.speed.bench import Bench
from benchmarks.speed.measured_process import output_of
from benchmarks.speed.row import Row
from training.checkpoint import save_checkpoint
from training.datasets import load_dataset
from training.models.config import ModelConfig
from training.models.registry import build_model
from training.preprocessing import Preprocessing
from training.wardrobe.write_catalogue import write_catalogue

MEMORY = "build peak memory beyond the model"

_GARMENTS = 300
_SIDE = 64


def memory_rows(bench: Bench) -> list[Row]:
    """A row a size."""
    garments, run = bench.work / "garments", bench.work / "small-run"
    if not (garments / "labels.csv").is_file():
        write_catalogue(garments, _GARMENTS, _SIDE, bench.seed)
    if not (run / "config.json").is_file():
        _save_model(garments, run)
    return [_row(bench, size, garments, run) for size in bench.build_sizes]


def _save_model(garments: Path, run: Path) -> None:
    """A model of random weights: memory does not depend on what they are."""
    torch.manual_seed(0)
    config = ModelConfig(backbone="small", lower_stages=False)
    model = build_model(load_dataset(str(garments)).schema, config).eval()
    save_checkpoint(run, model, Preprocessing(size=_SIDE), (), {})


def _row(bench: Bench, size: int, garments: Path, run: Path) -> Row:
    words = [run, garments / "images", size, bench.work / f"built-{size}"]
    told = output_of(["-m", "benchmarks.speed.build_gallery", *map(str, words)])
    cost = json.loads(told)
    return Row(
        what=MEMORY,
        size=cost["images"],
        value=cost["anonymous"] / 1e6,
        unit="MB",
        peak_bytes=cost["anonymous"],
        details={
            "with_mapped_files_mb": cost["resident"] / 1e6,
            "seconds": cost["seconds"],
            "images_per_second": cost["images"] / cost["seconds"],
            "index_bytes": cost["index_bytes"],
        },
    )
