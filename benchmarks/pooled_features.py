"""Average-pooled features of all stages of a backbone: what rivals that are no embedders see."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import WorkBench
from retrieval.console import counting
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.images.batches import Reading
from training.maps import MapCache, trunk_maps
from training.models.config import build_model


@dataclass(frozen=True)
class PooledFeatures:
    """Features [M, F] float32 of the images that could be read, and their rows, ascending [M].

    Means and deviations of the pixels, then every stage's means.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.float32]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of some of the rows, in their order."""
        return self.features[np.searchsorted(self.rows, rows)]


def pooled_stages(
    loaded: Checkpoint, bench: WorkBench, dataset: Dataset, rows: NDArray[np.int64], title: str
) -> PooledFeatures:
    """Pool the maps of all stages of a model's backbone over their cells, lower stages included.

    Raises DataError: none of the rows, which ascend, can be read; ResourceError: the cache cannot
    be written.
    """
    model = loaded.model
    whole = build_model(dataset.schema, replace(model.config, lower_stages=True), 0, None)
    whole.backbone.load_state_dict(model.backbone.state_dict())
    whole.to(next(model.parameters()).device)
    with counting(title, len(rows)) as bar:
        reading = Reading(loaded.preprocessing, bench.workers, bar)
        stored = trunk_maps(whole, dataset, rows, reading, MapCache(bench.cache))
    starts = range(0, len(stored.rows), 256)
    parts = [stored.maps[i : i + 256].astype(np.float32).mean((2, 3)) for i in starts]
    return PooledFeatures(stored.rows, np.concatenate(parts))


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of train features, [F] each."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> Scale:
        """Of features [M, F]; a number that never changes keeps a deviation of 1."""
        deviation = features.std(axis=0)
        return cls(features.mean(axis=0), np.where(deviation > 1e-6, deviation, 1))

    def standardise(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [M, F] less the mean, over the deviation."""
        return np.asarray((features - self.mean) / self.deviation, dtype=np.float32)
