import numpy as np
import pytest
from hand_scorer import SCHEMA, HandScorer, dataset_of, random_dataset

from retrieval.evaluation.exclusion import draw_exchanges, draw_exclusions, evaluate_exclusion


def test_queries_have_what_they_exclude_and_lack_what_they_want():
    dataset = random_dataset(80)
    labels = dataset.labels
    alone = draw_exclusions(dataset)
    assert sorted(e.query for e in alone) == np.flatnonzero((labels == 1).any(axis=1)).tolist()
    assert all(labels[e.query, e.unwanted] == 1 and e.wanted == () for e in alone)
    assert len(draw_exclusions(dataset, count=7)) == 7
    pairs = draw_exchanges(dataset, count=20, pairs=10)
    assert len({(e.wanted, e.unwanted) for e in pairs}) == 10
    for exchange in pairs:
        want, exclude = exchange.wanted[0], exchange.unwanted
        assert SCHEMA.attribute_of[want] != SCHEMA.attribute_of[exclude]
        assert (labels[exchange.query, want], labels[exchange.query, exclude]) == (-1, 1)
        assert ((labels[:, want] == 1) & (labels[:, exclude] == -1)).sum() >= 5
    assert draw_exclusions(dataset) == alone
    assert draw_exclusions(dataset, seed=1) != alone


def test_figures_against_a_slow_reference():
    dataset = random_dataset(80)
    scorer = HandScorer(80)
    report = evaluate_exclusion(dataset, scorer)
    labels = dataset.labels
    for score, requests in (
        (report.without, draw_exclusions(dataset)),
        (report.but_without, draw_exchanges(dataset)),
    ):
        violations, kept, right = [], [], []
        for request in requests:
            scores = scorer.named(request.query, request.wanted, [request.unwanted])
            rows = [row for row in range(80) if row != request.query]
            hits = sorted(rows, key=lambda row: (-scores[row], row))[:10]
            violations.append(np.mean([labels[h, request.unwanted] == 1 for h in hits]))
            right += [
                all(labels[h, w] == 1 for w in request.wanted) and labels[h, request.unwanted] == -1
                for h in hits
            ]
            named = {int(SCHEMA.attribute_of[v]) for v in (*request.wanted, request.unwanted)}
            pairs = []
            for a in set(range(3)) - named:
                own = set(np.flatnonzero(labels[request.query, SCHEMA.slice_of(a)] == 1))
                theirs = [set(np.flatnonzero(labels[h, SCHEMA.slice_of(a)] == 1)) for h in hits]
                pairs += [bool(own & t) for t in theirs if own and t]
            if pairs:
                kept.append(np.mean(pairs))
        assert score.queries == len(requests)
        assert score.violation10 == pytest.approx(np.mean(violations))
        assert score.keep10 == pytest.approx(np.mean(kept))
        expected = pytest.approx(np.mean(right)) if score is report.but_without else None
        assert score.precision10 == expected
    assert report.without.precision10 is None


def test_what_cannot_be_measured():
    unlabelled = dataset_of(np.zeros((5, SCHEMA.size)))
    assert evaluate_exclusion(unlabelled, HandScorer(5)) is None
    same = dataset_of(np.tile(random_dataset(1, unknown=0).labels, (6, 1)))
    report = evaluate_exclusion(same, HandScorer(6))
    assert report.but_without is None
    assert report.without.violation_chance == 1
