"""The official query and candidate files give the counts and chance figures of the papers' splits.

The files are parsed here with a few lines of numpy, apart from the dataset adapters, so that this
is an independent oracle.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.attribute_map import evaluate_attributes
from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.schema import Attribute, Schema

SPLITS = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "asen-splits"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SPLITS.is_dir(), reason="no ../shared/data/asen-splits"),
]

FACTS = {
    "DARN": (4293, 17168, [5.48, 23.46, 10.55, 29.91, 43.27, 38.76, 15.22, 62.02, 54.54], 31.26),
    "DeepFashion": (5525, 22100, [6.69, 2.69, 3.23, 2.55, 1.97], 3.38),
    "FashionAI": (3600, 14400, None, 15.79),
}


def official(name):
    meta = json.loads((SPLITS / "meta.json").read_text())[name]
    schema = Schema(
        tuple(
            Attribute(a, tuple(str(v) for v in range(meta["ATTRIBUTES_NUM"][a])))
            for a in meta["ATTRIBUTES"]
        )
    )
    lists = []
    for kind in ("query", "candidate"):
        columns = np.loadtxt(SPLITS / name / f"{kind}_test.txt", dtype=np.int64).T
        lists.append(RetrievalList(*columns))
    n = int(max(part.rows.max() for part in lists)) + 1
    return Dataset(
        name=name.lower(),
        root=SPLITS,
        schema=schema,
        paths=[""] * n,
        labels=np.zeros((n, schema.size), dtype=np.int8),
        category=np.full(n, -1, dtype=np.int64),
        category_names=(),
        splits=np.full(n, "test"),
        protocols={"test": RetrievalProtocol(*lists)},
    )


@pytest.mark.parametrize("name", list(FACTS))
def test_counts_and_chance_to_two_decimals(name):
    queries, candidates, attributes, everything = FACTS[name]
    dataset = official(name)
    constant = evaluate_attributes(
        dataset, "test", "type", lambda _, rows: np.ones((len(rows), 1), dtype=np.float32)
    )
    assert (constant.all.queries, constant.all.candidates) == (queries, candidates)
    if attributes is not None:
        assert [round(s.chance, 2) for s in constant.attributes.values()] == attributes
    assert round(constant.all.chance, 2) == everything
    assert not constant.leave_one_out
    # A constant embedding ranks by id, which is no better and no worse than chance.
    assert constant.all.map == pytest.approx(constant.all.chance, rel=0.1)
    if name == "DARN":
        assert constant.all.queries_without_relevant == 3
