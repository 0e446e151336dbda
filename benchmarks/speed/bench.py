"""What a run of the benchmark measures: engines of each size, pictures and combinations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.extended_store import extend
from benchmarks.speed.measured_calls import encode, load_kernel
from indexer.progress import Progress, Silent
from retrieval.engine import Engine
from retrieval.picture import Picture
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images import open_rgb
from training.schema import Condition, Schema

VALUES = (2, 3)
"""How many values a combination names, in turns."""


@dataclass
class Bench:
    """Settings of a run, and what it has open.

    Args:
        source: a real index of real trained maps.
        dataset: name or folder of the images to query with; those of the index by default.
        work: folder for the indexes that are made.
        sizes: of the galleries, ascending.
        index_sizes: of the index alone.
        build_sizes: of the galleries that are built to measure memory.
        encode_images: images that are encoded to measure the rate.
        queries: pictures.
        combinations: of two and three values.
        repeats: of what takes long.
        seed: of all draws.
        device: `cpu`, `cuda` or `cuda:N`.
        progress: a listener.
    """

    source: Path
    dataset: str | None
    work: Path
    sizes: tuple[int, ...]
    index_sizes: tuple[int, ...]
    build_sizes: tuple[int, ...]
    encode_images: int = 512
    queries: int = 50
    combinations: int = 6
    repeats: int = 5
    seed: int = 0
    device: str = "cpu"
    progress: Progress = field(default_factory=Silent)
    _engine: tuple[int, Engine] | None = None

    def index(self, size: int) -> Path:
        """The folder of an index of so many images, made now if it is not there."""
        out = self.work / f"index-{size}"
        return extend(self.source, out, size, self.seed, progress=self.progress, device=self.device)

    def engine(self, size: int) -> Engine:
        """An engine of that size, warm; the last one asked for stays open."""
        if self._engine is None or self._engine[0] != size:
            self._engine = None  # closed before the next is opened
            self._engine = (size, Engine.open(self.index(size), self.device))
            if self.device == "cpu":
                load_kernel(self._engine[1])
        return self._engine[1]

    def images(self) -> Dataset:
        """The dataset whose images are queried with and encoded."""
        return load_dataset(self.dataset or str(Engine.open(self.source, "cpu").store.root))

    def readable_rows(self, count: int) -> NDArray[np.int64]:
        """Rows of the dataset whose images can be read, drawn with a fixed seed; at most `count`.

        Raises:
            DataError: there are none.
        """
        dataset = self.images()
        out: list[int] = []
        for row in np.random.default_rng(self.seed).permutation(len(dataset)).tolist():
            if len(out) == count:
                break
            with contextlib.suppress(DataError):
                open_rgb(dataset.root / dataset.paths[row])
                out.append(row)
        if not out:
            raise DataError(
                f"dataset {dataset.name!r} has no readable image; name one by --dataset"
            )
        return np.array(out, dtype=np.int64)

    def image_files(self, count: int) -> list[Path]:
        """The files of `readable_rows`."""
        dataset = self.images()
        return [dataset.root / dataset.paths[row] for row in self.readable_rows(count).tolist()]

    def pictures(self, engine: Engine) -> list[Picture]:
        """Query pictures, encoded."""
        return [encode(engine, path) for path in self.image_files(self.queries)]

    def drawn(self, engine: Engine) -> list[list[int]]:
        """Combinations of values that images of the gallery have, see `combinations_of`."""
        chances = engine.store.predicted()
        return combinations_of(engine.schema, chances, self.combinations, self.seed)


def combinations_of(
    schema: Schema, chances: NDArray[np.float16], count: int, seed: int
) -> list[list[int]]:
    """Combinations of two and three values, all different, that images have most likely.

    Args:
        schema: attributes and values.
        chances: the model's probability of every value, [N, K].
        count: how many; fewer if images have no more that differ.
        seed: of the draws.

    Returns:
        Ascending flat indices of values of different attributes.
    """
    generator = np.random.default_rng(seed)
    attributes = [n for n, a in enumerate(schema.attributes) if a.values]
    found: dict[tuple[int, ...], None] = {}
    for attempt in range(20 * count):
        if len(found) == count:
            break
        image = np.asarray(chances[generator.integers(len(chances))], dtype=np.float32)
        size = min(VALUES[attempt % len(VALUES)], len(attributes))
        chosen = np.sort(generator.choice(attributes, size, replace=False))
        wheres = [schema.slice_of(int(n)) for n in chosen]
        found[tuple(where.start + int(image[where].argmax()) for where in wheres)] = None
    return [list(values) for values in found]


def new_conditions(schema: Schema, count: int, seed: int) -> list[Condition]:
    """Conditions of two and three values that nothing has been built for, [K] each."""
    generator = np.random.default_rng(seed)
    out = []
    for number in range(count):
        size = min(VALUES[number % len(VALUES)], len(schema.attributes))
        chosen = np.sort(generator.choice(len(schema.attributes), size, replace=False))
        wheres = [schema.slice_of(int(n)) for n in chosen]
        out.append(schema.value_condition(int(generator.integers(w.start, w.stop)) for w in wheres))
    return out
