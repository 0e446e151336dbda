"""A process that builds an index of any size and says how much memory that took.

    python -m benchmarks.speed.build_gallery CHECKPOINT IMAGES COUNT OUT

The gallery is COUNT names of the few images in IMAGES, under links that are removed again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.speed.peak_memory import PeakMemory
from indexer.build import build_index
from training.allocator import keep_freed_memory
from training.checkpoint import load_checkpoint
from training.datasets.dataset import Dataset
from training.schema import Schema


@dataclass(frozen=True)
class BuildCost:
    """What building took: seconds, images, and bytes beyond the loaded model."""

    seconds: float
    images: int
    anonymous: int
    resident: int
    index_bytes: int


def build_gallery(checkpoint: Path, images: Path, count: int, out: Path) -> BuildCost:
    """Build an index of `count` names of the images in a folder; both are removed again.

    Args:
        checkpoint: the model.
        images: a folder of image files.
        count: images of the gallery.
        out: folder to work in; removed at the end, and what a killed run left of it before.
    """
    shutil.rmtree(out, ignore_errors=True)
    keep_freed_memory()
    model = load_checkpoint(checkpoint)
    try:
        dataset = _linked(images, count, out / "gallery", model.schema)
        started = time.perf_counter()
        with PeakMemory() as memory:
            report = build_index(dataset, np.arange(count), model, out / "index")
        seconds = time.perf_counter() - started
        return BuildCost(seconds, report.images, memory.anonymous, memory.resident, report.bytes)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _linked(images: Path, count: int, folder: Path, schema: Schema) -> Dataset:
    """A dataset of `count` links to the files in `images`; nothing is known of them."""
    files = sorted(path for path in images.iterdir() if path.is_file())
    paths = [f"{number // 1000:03d}/{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        target = folder / path
        if number % 1000 == 0:
            target.parent.mkdir(parents=True)
        _link(files[number % len(files)], target)
    labels = np.zeros((count, schema.size), np.int8)
    category = np.full(count, -1, np.int64)
    splits = np.full(count, "")
    return Dataset("links", folder, schema, paths, labels, category, (), splits)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or as many links as it allows
        os.symlink(file.resolve(), target)


if __name__ == "__main__":
    _checkpoint, _images, _count, _out = sys.argv[1:]
    _cost = build_gallery(Path(_checkpoint), Path(_images), int(_count), Path(_out))
    print(json.dumps(asdict(_cost)))
