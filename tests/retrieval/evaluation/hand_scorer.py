"""A dataset and a scorer written down by hand, for the tests of what evaluation asks."""

from pathlib import Path

import numpy as np

from training.datasets.dataset import Dataset
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("colour", ("red", "blue", "green")),
        Attribute("fit", ("slim", "loose")),
        Attribute("trim", ("bow", "lace", "zip"), multi=True),
    )
)


def dataset_of(labels, items=None):
    """Label states [N, 8]."""
    n = len(labels)
    return Dataset(
        name="toy",
        root=Path("."),
        schema=SCHEMA,
        paths=[f"{i}.jpg" for i in range(n)],
        labels=np.asarray(labels, dtype=np.int8),
        category=np.full(n, -1, dtype=np.int64),
        category_names=(),
        splits=np.full(n, "test"),
        items=None if items is None else np.asarray(items),
    )


def random_dataset(n=60, seed=0, unknown=0.1):
    """One value of the first two attributes, one or two of the third; some attributes unknown."""
    rng = np.random.default_rng(seed)
    labels = np.full((n, SCHEMA.size), -1)
    for row in labels:
        for number in range(3):
            where = SCHEMA.slice_of(number)
            if rng.random() < unknown:
                row[where] = 0
                continue
            count = rng.integers(1, 3) if number == 2 else 1
            row[rng.choice(np.arange(where.start, where.stop), count, replace=False)] = 1
    return dataset_of(labels)


class HandScorer:
    """Random scores that depend on the whole request; coarse, so that many tie."""

    ranked_by = "by hand"

    def __init__(self, n):
        self.n = n
        self.asked = []

    def scores(self, *request):
        seed = [int(1000 * x) for x in request]
        return np.random.default_rng(seed).integers(0, 12, self.n).astype(np.float32)

    def whole(self, query):
        return self.scores(1, query)

    def kept(self, query, attributes):
        return self.scores(2, query, *attributes)

    def named(self, query, wanted, unwanted=(), keep=None):
        self.asked.append((query, tuple(wanted), tuple(unwanted), keep))
        return self.scores(3, query, *wanted, 99, *unwanted, 2 if keep is None else keep)
