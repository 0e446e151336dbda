"""The published label files and the real catalogues, where they lie beside the checkout."""

from pathlib import Path

import numpy as np
import pytest

from training.datasets import load_dataset
from training.datasets.dataset import Dataset

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the checkout"),
]


@pytest.mark.parametrize(
    ("name", "folder", "queries", "candidates", "values"),
    [
        ("darn", "DARN", 4293, 17168, (20, 13, 55, 7, 28, 11, 26, 8, 17)),
        ("deepfashion", "DeepFashion", 5525, 22100, (156, 218, 180, 216, 230)),
        ("fashionai", "FashionAI", 3600, 14400, (6, 9, 8, 6, 5, 5, 10, 5)),
    ],
)
def test_published_lists(
    name: str, folder: str, queries: int, candidates: int, values: tuple[int, ...]
) -> None:
    dataset = load_dataset(str(DATA / "asen-splits" / folder))
    assert dataset.name == name
    assert tuple(len(a.values) for a in dataset.schema.attributes) == values
    assert set(dataset.protocols) == {"valid", "test"}
    protocol = dataset.protocols["test"]
    assert (len(protocol.queries.rows), len(protocol.candidates.rows)) == (queries, candidates)
    assert set(dataset.splits[protocol.queries.rows]) == {"test"}
    for entries in (protocol.queries, protocol.candidates):
        flat = np.array(dataset.schema.offsets)[entries.attributes] + entries.values
        # In DeepFashion this shows that ids are ranked as the lists rank them: labels come first.
        assert (dataset.labels[entries.rows, flat] == 1).all()


def test_deepfashion_labels_say_no_more_than_their_file() -> None:
    folder = DATA / "asen-splits" / "DeepFashion"
    dataset = load_dataset("deepfashion", folder)
    stated = [
        len({*zip(*[iter(line.split()[1:])] * 2, strict=True)})
        for split in ("valid", "test")
        for line in (folder / f"label_{split}.txt").read_text().splitlines()
    ]
    np.testing.assert_array_equal((dataset.labels == 1).sum(axis=1), stated)


def test_darn_items_straddle_the_published_split_only() -> None:
    from training.datasets import asen as darn

    def straddling(dataset: Dataset) -> int:
        assert dataset.items is not None
        valid, test = (set(dataset.items[dataset.splits == s]) for s in ("valid", "test"))
        return len(valid & test)

    folder = DATA / "asen-splits" / "DARN"
    assert straddling(darn.load_darn(folder)) == 3874
    assert straddling(darn.load_darn(folder, item_grouped=True)) == 0


def test_fashion_products() -> None:
    dataset = load_dataset(str(DATA / "fashion-products"))
    assert len(dataset) == 9869
    assert [(a.name, len(a.values), a.multi) for a in dataset.schema.attributes] == [
        ("gender", 5, False),
        ("category", 48, False),
        ("colour", 28, False),
        ("usage", 5, False),
        ("pattern", 5, False),
    ]
    assert len(dataset.category_names) == 48
    assert all((dataset.root / path).is_file() for path in dataset.paths)


def test_street_clothing() -> None:
    dataset = load_dataset(str(DATA / "street-clothing"))
    assert len(dataset) == 1392
    multi = [a.name for a in dataset.schema.attributes if a.multi]
    assert (len(dataset.schema.attributes), multi) == (11, ["pattern", "colour"])
    black, gray = dataset.schema.value("colour:black"), dataset.schema.value("colour:gray")
    assert dataset.labels[dataset.paths.index("images/000003.jpg"), [black, gray]].tolist() == [
        1,
        1,
    ]
