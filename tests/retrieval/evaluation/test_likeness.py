import numpy as np
import pytest
from hand_scorer import HandScorer, dataset_of, random_dataset

from retrieval.evaluation.likeness import evaluate_likeness, likeness_queries, near_ties
from retrieval.evaluation.scorer import FloorScorer


def ranking(scores, query):
    rows = [row for row in range(len(scores)) if row != query]
    return sorted(rows, key=lambda row: (-scores[row], row))


def test_the_first_other_picture_of_the_item_against_a_slow_reference():
    dataset = random_dataset(40)
    items = np.random.default_rng(3).integers(0, 20, 40)
    dataset = dataset_of(dataset.labels, items)
    vectors = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    scorer, floor = HandScorer(40), FloorScorer(vectors)
    report = evaluate_likeness(dataset, scorer, floor)

    queries = [q for q in range(40) if 2 <= (items == items[q]).sum() <= 5]
    assert likeness_queries(items).tolist() == queries
    assert 10 < len(queries) < 40

    def others(query):
        return [row for row in range(40) if items[row] == items[query] and row != query]

    def kept(query):
        known = [
            a for a in range(3) if (dataset.labels[query, dataset.schema.slice_of(a)] > 0).any()
        ]
        return [scorer.kept(query, [a]) for a in known or range(3)]

    nearest = {q: max(vectors[q] @ vectors[row] for row in others(q)) for q in queries}
    hard = sorted(queries, key=lambda q: (nearest[q], q))[: len(queries) // 2]
    for found, rankings in (
        (report.query, lambda q: [scorer.whole(q)]),
        (report.kept, kept),
        (report.floor, lambda q: [vectors @ vectors[q]]),
    ):
        ranks = {
            q: np.array(
                [
                    1 + min(ranking(one.astype(np.float32), q).index(row) for row in others(q))
                    for one in rankings(q)
                ]
            )
            for q in queries
        }
        assert found.queries == len(queries)
        assert found.mrr == pytest.approx(np.mean([(1 / r).mean() for r in ranks.values()]))
        assert found.hard_mrr == pytest.approx(np.mean([(1 / ranks[q]).mean() for q in hard]))
        assert found.r1 == pytest.approx(np.mean([(r == 1).mean() for r in ranks.values()]))
        assert found.r10 == pytest.approx(np.mean([(r <= 10).mean() for r in ranks.values()]))


def test_likeness_that_cannot_be_measured():
    dataset = random_dataset(8)
    assert evaluate_likeness(dataset, HandScorer(8), HandScorer(8)) is None
    apart = dataset_of(dataset.labels, np.arange(8))
    assert evaluate_likeness(apart, HandScorer(8), HandScorer(8)) is None
    crowd = dataset_of(dataset.labels, np.zeros(8, dtype=int))  # seven others are too many
    assert evaluate_likeness(crowd, HandScorer(8), HandScorer(8)) is None


@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_near_ties_against_a_slow_reference(lowest):
    dataset = random_dataset(50)
    angles = np.random.default_rng(2).uniform(0, np.pi if lowest else np.pi / 2, (3, 50))

    def embed(condition, rows):
        own = angles[[0, 0, 0, 1, 1, 2, 2, 2][int(np.argmax(condition))]]
        return np.stack([np.cos(own), np.sin(own)], axis=1)[rows].astype(np.float32)

    found = near_ties(dataset, embed)
    for number, name in enumerate(("colour", "fit", "trim")):
        vectors = embed(dataset.schema.type_condition(number), np.arange(50))
        similar = vectors @ vectors.T
        if lowest:
            similar = (1 + similar) / 2
        counts = []
        for query in range(50):
            others = np.delete(similar[query], query)
            tenth = sorted(others)[-10]
            counts.append((np.abs(others - tenth) <= 0.01).sum())
        assert found[name] == pytest.approx(np.median(counts) / 49 * 1000)
    assert near_ties(random_dataset(10), embed) is None
