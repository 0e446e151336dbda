"""How many images of a gallery nearly tie with the tenth hit: what likeness does not tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.attribute_map import Embed
from training.datasets.dataset import Dataset

NEAR = 0.01
"""Of similarities scaled to 0..1: as near as this is a tie."""

MOST_QUERIES = 2000
"""More images than these are a fixed draw of queries."""

_TENTH = 10
_BLOCK = 256
_ROUNDING = 1e-5


def near_ties(
    dataset: Dataset, embed: Embed, seed: int = 0, embed_queries: Embed | None = None
) -> dict[str, float] | None:
    """Median number of images within 0.01 of the tenth hit's similarity, per 1,000 images.

    Args:
        dataset: the split: every image queries all others.
        embed: gives embeddings under a condition; similarity is their dot product, up to 1.
            Where any is below 0 they are scaled to 0..1.
        seed: of the draw where there are more than `MOST_QUERIES` images.
        embed_queries: gives the queries' where they are made in another way. None: `embed`.

    Returns:
        For each attribute by name, under its type condition, 0..1000; the tenth hit is one of
        them. None with fewer than eleven images.
    """
    count = len(dataset)
    if count <= _TENTH:
        return None
    rows = np.arange(count, dtype=np.int64)
    queries = rows
    if count > MOST_QUERIES:
        drawn = np.random.default_rng(seed).choice(count, size=MOST_QUERIES, replace=False)
        queries = np.sort(drawn)
    out: dict[str, float] = {}
    for number, attribute in enumerate(dataset.schema.attributes):
        condition = dataset.schema.type_condition(number)
        vectors = embed(condition, rows)
        near: list[NDArray[np.int64]] = []
        lowest = 0.0
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            asking = vectors[block] if embed_queries is None else embed_queries(condition, block)
            similarities = asking @ vectors.T
            lowest = min(lowest, float(similarities.min()))
            similarities[np.arange(len(block)), block] = -np.inf
            tenth = -np.partition(-similarities, _TENTH - 1, axis=1)[:, _TENTH - 1 : _TENTH]
            apart = np.abs(similarities - tenth)
            # Within 0.01 of what is in 0..1 already, and of what is in -1..1 and would be halved.
            near.append(np.stack([(apart <= NEAR).sum(axis=1), (apart <= 2 * NEAR).sum(axis=1)]))
        counts = np.concatenate(near, axis=1)[int(lowest < -_ROUNDING)]
        out[attribute.name] = float(np.median(counts)) * 1000 / (count - 1)
    return out
