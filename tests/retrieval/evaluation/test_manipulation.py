import math

import numpy as np
import pytest
from hand_scorer import SCHEMA, HandScorer, dataset_of, random_dataset

from retrieval.evaluation.manipulation import (
    compared_attributes,
    evaluate_manipulation,
    manipulation_task,
)


def sets_of(labels):
    return [frozenset(np.flatnonzero(labels[SCHEMA.slice_of(a)] == 1).tolist()) for a in range(3)]


def slow_queries(dataset):
    """(row, attribute, flat value, target) of every query, and the gallery's rows."""
    every = [sets_of(row) for row in dataset.labels]
    gallery = [row for row, sets in enumerate(every) if all(sets)]
    out = []
    for row in gallery:
        for a in range(3):
            for value in range(SCHEMA.offsets[a + 1] - SCHEMA.offsets[a]):
                target = list(every[row])
                target[a] = frozenset({value})
                if value not in every[row][a] and any(every[g] == target for g in gallery):
                    out.append((row, a, SCHEMA.offsets[a] + value, target))
    return out, gallery


def ndcg(relevance):
    gains = [(2.0**r - 1) / math.log(i + 2) for i, r in enumerate(relevance)]
    return 100 * sum(gains) / sum(1 / math.log(i + 2) for i in range(len(relevance)))


def test_queries_are_all_exchanges_whose_target_exists():
    dataset = random_dataset(80)
    assert compared_attributes(dataset) == (0, 1, 2)
    slow, gallery = slow_queries(dataset)
    task = manipulation_task(dataset)
    assert task.rows.tolist() == gallery
    found = np.stack([task.rows[task.query], task.changed, task.value], axis=1)
    assert set(map(tuple, found.tolist())) == {(row, a, value) for row, a, value, _ in slow}
    assert task.available == len(slow) == len(task.query) > 100
    fewer = manipulation_task(dataset, queries=20)
    assert (len(fewer.query), fewer.available) == (20, len(slow))
    assert (np.diff(fewer.value) >= 0).all()


def test_an_attribute_known_of_less_than_half_is_not_compared():
    labels = random_dataset(40, unknown=0).labels.copy()
    labels[:21, SCHEMA.slice_of(1)] = 0
    assert compared_attributes(dataset_of(labels)) == (0, 2)
    labels[:21, SCHEMA.slice_of(2)] = 0
    assert evaluate_manipulation(dataset_of(labels), HandScorer(40)) is None


def test_figures_against_a_slow_reference():
    dataset = random_dataset(80)
    scorer = HandScorer(80)
    report = evaluate_manipulation(dataset, scorer, dial=(0.0, 0.5))
    slow, gallery = slow_queries(dataset)
    assert report.queries == len(slow)
    assert {a[3] for a in scorer.asked} == {None, 0.0, 0.5}
    assert [point.keep for point in report.curve] == [0.0, 0.5]
    for point in (report.default, *report.curve):
        figures = []
        for row, a, value, target in slow:
            scores = scorer.named(row, [value], keep=point.keep)
            ranked = sorted(gallery, key=lambda g: (-scores[g], g))
            equal = [np.equal(sets_of(dataset.labels[g]), target) for g in ranked]
            others = [np.delete(e, a).mean() for e in equal]
            beside = [n for n, g in enumerate(ranked) if g != row][:10]
            figures.append(
                [
                    100 * any(e.all() for e in equal[:30]),
                    ndcg([e.mean() for e in equal[:30]]),
                    ndcg([e[a] for e in equal[:30]]),
                    ndcg(others[:30]),
                    np.mean([equal[n][a] for n in beside]),
                    np.mean([others[n] for n in beside]),
                ]
            )
        found = [point.top30, point.ndcg, point.ndcg_target, point.ndcg_others]
        found += [point.changed_p10, point.keep10]
        assert found == pytest.approx(np.mean(figures, axis=0))
    assert report.default != report.curve[0]
