from dataclasses import replace

import numpy as np
import pytest
from hand_scorer import SCHEMA, random_dataset

from retrieval.evaluation.encoded_split import align_dataset
from training.datasets.dataset import RetrievalList, RetrievalProtocol
from training.errors import DataError
from training.schema import Attribute, Schema

OTHER = Schema(
    (Attribute("Fit", ("loose", "wide", "SLIM")), Attribute("Colour", ("blue", "black")))
)


def test_labels_and_lists_are_renumbered_by_name():
    dataset = random_dataset(30)
    # Every value of the toy's once: colour red blue green, fit slim loose, trim bow lace zip.
    listed = RetrievalList(np.arange(8), SCHEMA.attribute_of, np.array([0, 1, 2, 0, 1, 0, 1, 2]))
    dataset = replace(dataset, protocols={"test": RetrievalProtocol(listed, listed)})
    found = align_dataset(dataset, OTHER)
    labels = dataset.labels
    # What the dataset lacks is absent where another value is stated, else unknown.
    wide, black = (-(labels[:, own] == 1).any(axis=1).astype(int) for own in ([3, 4], [0, 1, 2]))
    expected = np.stack([labels[:, 4], wide, labels[:, 3], labels[:, 1], black], axis=1)
    np.testing.assert_array_equal(found.dataset.labels, expected)
    assert found.dataset.schema is OTHER
    queries = found.dataset.protocols["test"].queries
    triples = np.stack([queries.rows, queries.attributes, queries.values], axis=1)
    assert triples.tolist() == [[1, 1, 0], [3, 0, 2], [4, 0, 0]]
    assert found.unknown_to_model == ("colour:red", "colour:green", "trim")
    assert found.unknown_to_dataset == ("Fit:wide", "Colour:black")


def test_the_same_schema_and_nothing_in_common():
    dataset = random_dataset(5)
    assert align_dataset(dataset, SCHEMA).dataset is dataset
    with pytest.raises(DataError, match="toy and the checkpoint have no value in common"):
        align_dataset(dataset, Schema((Attribute("sole", ("rubber",)),)))
