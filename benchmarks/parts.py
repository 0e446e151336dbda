"""What it costs to share the encoding of a gallery: on Ray, and in parts that are merged.

    retrieve bench parts --checkpoint runs/a --size 5000

One process, Ray with a worker a core, and parts one after another build the same index in turns, by
the same cores; what they write is compared to the byte. Joining a cluster and its preflight are
counted apart, as is opening the model; that Ray's workers start is not.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from benchmarks.common import Data, Result, WorkBench, bench_command, table, vector_instructions
from benchmarks.wardrobe.write import write_catalogue
from indexer.build.build import BuildOptions, build_index
from indexer.build.parts import Part, build_part, merge_parts
from indexer.progress import Silent
from indexer.store.manifest import LOCK_NAME
from retrieval.options import COUNT
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.device import keep_freed_memory
from training.errors import DataError
from training.files import file_sha256
from training.threads import threads

PARTS = 4
WAYS = ("one process", "Ray", f"{PARTS} parts")


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    header = ["what encodes", "images/s", "times one process", "the rest, s"]
    rows = [
        [row["what"], f"{row['rate']:.1f}", f"{row['ratio']:.3f}", f"{row['rest']:.1f}"]
        for row in data["rows"]
    ]
    return table(
        header,
        rows,
        f"{data['images']:,} pictures of {data['dataset']}, shards of {data['shard_rows']}, "
        f"{data['backbone']} at {data['size']} px, {data['threads']} threads, medians of "
        f"{data['rounds']} rounds in turns on {data['machine']}. All wrote the same bytes: "
        f"{data['bytes_an_image']:.0f} an image, the model apart.",
    )


@dataclass(frozen=True, kw_only=True)
class Options(WorkBench):
    """What is encoded, and how often."""

    checkpoint: Annotated[Path, "The trained model."]
    dataset: Annotated[str | None, "Name or folder [default: rendered garments]."] = None
    size: Annotated[int, COUNT, "Pictures."] = 5000
    shard_rows: Annotated[int, COUNT, "Images a shard."] = 128
    rounds: Annotated[int, COUNT] = 3


class Watch(Silent):
    """How long images were encoded, in seconds."""

    def __init__(self) -> None:
        self.seconds, self._last = 0.0, 0.0

    def start(self, stage: str, total: int) -> None:
        """The model is open, or the cluster joined."""
        self._last = time.perf_counter()

    def advance(self, count: int) -> None:
        """Some are done."""
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now


@bench_command("parts", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Build one index in three ways, in turns."""
    keep_freed_memory()
    loaded, dataset = load_checkpoint(options.checkpoint), _dataset(options)
    rows = np.arange(min(options.size, len(dataset)))
    folders = {what: options.work / f"parts-{number}" for number, what in enumerate(WAYS)}
    took: dict[str, list[tuple[float, float]]] = {what: [] for what in WAYS}
    for _ in range(options.rounds):
        for what, out in folders.items():
            shutil.rmtree(out, ignore_errors=True)
            watch, started = Watch(), time.perf_counter()
            ray = "local" if what == "Ray" else None
            how = BuildOptions(shard_rows=options.shard_rows, ray=ray, progress=watch)
            if what == WAYS[2]:
                for number in range(PARTS):
                    build_part(dataset, rows, loaded, out, Part(number + 1, PARTS), how)
                merge_parts(dataset, rows, loaded, out, [out], how)
            else:
                build_index(dataset, rows, loaded, out, how)
            took[what].append((watch.seconds, time.perf_counter() - started - watch.seconds))
        written = [_files(out) for out in folders.values()]
        if any(files != written[0] for files in written):
            raise DataError(f"{', '.join(map(str, folders.values()))} are not the same")
    stored = sum(size for name, (_, size) in written[0].items() if not name.startswith("model"))
    medians = {what: [statistics.median(t) for t in zip(*took[what], strict=True)] for what in WAYS}
    yield (
        f"parts-{vector_instructions().casefold()}",
        {
            "dataset": dataset.name,
            "images": len(rows),
            "shard_rows": options.shard_rows,
            "backbone": loaded.config.backbone,
            "size": loaded.preprocessing.size,
            "threads": threads(),
            "rounds": options.rounds,
            "bytes_an_image": round(stored / len(rows), 1),
            "rows": [
                {
                    "what": what,
                    "rate": round(len(rows) / seconds, 2),
                    "ratio": round(medians[WAYS[0]][0] / seconds, 4),
                    "rest": round(rest, 2),
                }
                for what, (seconds, rest) in medians.items()
            ],
        },
    )


def _dataset(options: Options) -> Dataset:
    if options.dataset is not None:
        return load_dataset(options.dataset)
    folder = options.work / f"wardrobe-{options.size}"
    if not (folder / "labels.csv").is_file():
        write_catalogue(folder, options.size, workers=max(1, options.workers))
    return load_dataset(str(folder))


def _files(out: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and size of each file of an index but its lock."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != LOCK_NAME]
    return {str(p.relative_to(out)): (file_sha256(p), p.stat().st_size) for p in paths}
