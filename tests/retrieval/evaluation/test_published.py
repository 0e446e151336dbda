import numpy as np
import pytest

from retrieval.evaluation.published import PUBLISHED, published_for

# Queries of each attribute in DARN's official test file.
QUERIES = [476, 448, 491, 448, 463, 533, 509, 483, 442]


@pytest.mark.parametrize("method", ["Triplet", "ASEN", "RPF"])
def test_published_all_is_the_mean_over_all_queries(method):
    row = PUBLISHED["darn"].rows[method]
    assert np.average(row[:-1], weights=QUERIES) == pytest.approx(row[-1], abs=0.006)


def test_rows_fit_their_columns():
    for table in PUBLISHED.values():
        assert all(len(row) == len(table.columns) for row in table.rows.values())


def test_shown_only_where_the_lists_and_the_condition_are_the_same():
    assert published_for("darn", "test", "type", 4293) is PUBLISHED["darn"]
    assert published_for("darn", "valid", "type", 4293) is None
    assert published_for("darn", "test", "value", 4293) is None
    assert published_for("darn", "test", "type", 400) is None
    assert published_for("fashion-products", "test", "type", 4293) is None
