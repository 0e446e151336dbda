"""Average-pooled features of all stages of a backbone: what rivals that are no embedders see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.console import counting
from training.datasets.dataset import Dataset
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import trunk_maps
from training.models.embedder import ConditionedEmbedder
from training.models.registry import build_model


@dataclass(frozen=True)
class PooledFeatures:
    """Features of the images that could be read.

    Args:
        rows: of the dataset, ascending [M] int64.
        features: [M, F] float32: means and deviations of the pixels, then every stage's means.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.float32]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of some of the rows, in their order."""
        return self.features[np.searchsorted(self.rows, rows)]


def pooled_stages(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    cache: Path,
    workers: int,
    title: str,
) -> PooledFeatures:
    """Pool the maps of all stages of a model's backbone over their cells, lower stages included.

    Args:
        model: whose backbone sees the images.
        dataset: where the images are.
        rows: which of them, ascending.
        preprocessing: size and mode.
        cache: folder that keeps the maps, as `trunk_maps` does.
        workers: decoding processes.
        title: of the progress bar.

    Raises:
        DataError: no image can be read.
        ResourceError: the cache cannot be written.
    """
    device = next(model.parameters()).device
    whole = build_model(dataset.schema, replace(model.config, lower_stages=True), 0, None)
    whole.backbone.load_state_dict(model.backbone.state_dict())
    whole.to(device)
    with counting(title, len(rows)) as bar:
        stored = trunk_maps(whole, dataset, rows, Reading(preprocessing, workers, bar), cache)
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
