"""`retrieve query from a cold start`: a process from nothing to hits, against the least it needs.

The floor is a process that imports torch and faiss, loads the checkpoint and encodes one image.
"""

from __future__ import annotations

from benchmarks.speed.bench import Bench
from benchmarks.speed.measured_process import output_of
from benchmarks.speed.row import Row
from benchmarks.speed.timing import paired
from indexer.store import open_store

START = "retrieve query from a cold start"

_SIZE = 10_000  # images, or the size next to it

_FLOOR = """
import sys
import torch, faiss
from pathlib import Path
from training.checkpoint import load_checkpoint
checkpoint = load_checkpoint(Path(sys.argv[1]))
pixels = torch.from_numpy(checkpoint.preprocessing.open(Path(sys.argv[2]))).unsqueeze(0)
with torch.inference_mode():
    checkpoint.model.features(checkpoint.preprocessing.normalise(pixels))
"""


def start_rows(bench: Bench) -> list[Row]:
    """One row, for the size next to ten thousand images: a query by two values without a view."""
    size = min(bench.sizes, key=lambda size: abs(size - _SIZE))
    index = bench.index(size)
    store = open_store(index)
    (image,) = map(str, bench.image_files(1))
    attributes = range(min(2, len(store.schema.attributes)))
    names = ",".join(store.schema.value_names[store.schema.slice_of(n).start] for n in attributes)
    query = ["-m", "retrieval.cli", "query", image, "--attrs", names, "--index", str(index)]
    query += ["--device", bench.device, "--json"]
    floor = ["-c", _FLOOR, str(store.model_folder), image]
    times = paired(lambda n: output_of(query), lambda n: output_of(floor), bench.repeats)
    return [
        Row(
            what=START,
            size=size,
            value=times.value,
            unit="s",
            floor=times.floor,
            ratio=times.ratio,
            against="import torch and faiss, load the checkpoint, encode one image",
            repeats=bench.repeats,
        )
    ]
