"""Top-k accuracy and recall@k against scikit-learn and a slow loop."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from retrieval.evaluation.classification import (
    KS,
    HeadScores,
    classification_report,
    draw_known_labels,
    recall_score,
)
from retrieval.evaluation.published import TABLE_1, TABLE_2
from training.errors import DataError, UsageError
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("fabric", tuple(f"f{n}" for n in range(9)), multi=True),
        Attribute("category", tuple(f"c{n}" for n in range(7))),
        Attribute("style", tuple(f"s{n}" for n in range(6)), multi=True),
    )
)
PAPER = Path(__file__).resolve().parents[3] / ".." / "shared" / "seed"


def example(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, categories, and scores that know something of both."""
    rng = np.random.default_rng(7)
    labels = rng.choice([-1, 0, 1], (count, SCHEMA.size), p=[0.6, 0.2, 0.2]).astype(np.int8)
    labels[:, SCHEMA.slice_of(1)] = -1
    category = rng.integers(-1, 7, count)
    known = np.flatnonzero(category >= 0)
    labels[known, SCHEMA.offsets[1] + category[known]] = 1
    labels[category < 0, SCHEMA.slice_of(1)] = 0
    labels[:3] = 0  # of these nothing is known
    category[:3] = -1
    scores = (labels + 1.5 * rng.normal(size=labels.shape)).astype(np.float32)
    return labels, category, scores, rng.normal(size=(count, 7)).astype(np.float32)


def slow_recall(scores, positive, candidates, k) -> float:
    """Sort each image's candidates, count the positives among the first k, pool."""
    hits = positives = 0
    for row in range(len(scores)):
        there = [v for v in range(scores.shape[1]) if candidates[row, v]]
        first = sorted(there, key=lambda v: (-scores[row, v], v))[:k]
        hits += sum(positive[row, v] for v in first)
        positives += positive[row].sum()
    return 100 * hits / positives


def test_ranks_equal_the_slow_loop_ties_and_all() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (40, 11)).astype(np.float32)  # full of ties
    candidates = rng.random(scores.shape) < 0.7
    positive = candidates & (rng.random(scores.shape) < 0.3)
    score = recall_score("x", scores, positive, candidates)
    for k, recall in zip(KS, score.recall, strict=True):
        assert recall == pytest.approx(slow_recall(scores, positive, candidates, k))
    best = np.where(positive, 1, 0).astype(np.float32)
    for k, ceiling in zip(KS, score.ceiling, strict=True):
        assert ceiling == pytest.approx(slow_recall(best, positive, candidates, k))
    draws = [rng.random(scores.shape) for _ in range(400)]
    for k, chance in zip(KS, score.chance, strict=True):
        mean = np.mean([slow_recall(d, positive, candidates, k) for d in draws])
        assert chance == pytest.approx(mean, abs=1.5)
    assert (score.positives, score.images) == (positive.sum(), positive.any(1).sum())
    assert all(i.low <= r <= i.high for i, r in zip(score.ci or (), score.recall, strict=True))


def test_category_is_scikit_learns_top_k_accuracy() -> None:
    _, category, _, scores = example()
    labels = np.zeros((60, SCHEMA.size), dtype=np.int8)
    found = classification_report(SCHEMA, labels, category, HeadScores(None, scores)).category
    known = category >= 0
    assert found is not None
    for k, accuracy in zip(KS, found.recall, strict=True):
        expected = top_k_accuracy_score(category[known], scores[known], k=k, labels=range(7))
        assert accuracy == pytest.approx(100 * expected)
    assert found.positives == found.images == known.sum()
    assert found.chance == pytest.approx([100 * k / 7 for k in KS])


def test_each_type_ranks_its_own_values_and_all_both_ways() -> None:
    labels, category, scores, heads = example()
    report = classification_report(SCHEMA, labels, category, HeadScores(scores, heads))
    every = np.ones(labels.shape, dtype=bool)
    for number, score in enumerate(report.types):
        own = SCHEMA.slice_of(number)
        assert score.name == SCHEMA.attributes[number].name
        for k, recall in zip(KS, score.recall, strict=True):
            expected = slow_recall(scores[:, own], labels[:, own] == 1, every[:, own], k)
            assert recall == pytest.approx(expected)
    assert report.all_micro is not None
    for k, recall in zip(KS, report.all_micro.recall, strict=True):
        assert recall == pytest.approx(slow_recall(scores, labels == 1, every, k))
    assert report.all_mean == pytest.approx(np.mean([s.recall for s in report.types], axis=0))
    assert report.all_micro.recall[0] < report.all_mean[0]


def test_labels_that_were_told_take_no_part() -> None:
    labels, category, scores, heads = example()
    shown = draw_known_labels(labels, SCHEMA, 0.5, seed=3)
    report = classification_report(SCHEMA, labels, category, HeadScores(scores, heads), shown)
    open_ = shown == 0
    assert report.all_micro is not None
    for k, recall in zip(KS, report.all_micro.recall, strict=True):
        expected = slow_recall(scores, (labels == 1) & open_, open_, k)
        assert recall == pytest.approx(expected)
    assert report.all_micro.ci is None
    # The scores of what was told change nothing.
    other = np.where(open_, scores, 99).astype(np.float32)
    again = classification_report(SCHEMA, labels, category, HeadScores(other, heads), shown)
    assert again == report
    # Who was told the category has none to predict.
    told = (shown[:, SCHEMA.slice_of(1)] != 0).any(1)
    kept = (category >= 0) & ~told
    assert 5 < told.sum() < 55
    assert report.category is not None
    assert report.category.images == kept.sum()
    expected = top_k_accuracy_score(category[kept], heads[kept], k=3, labels=range(7))
    assert report.category.recall[1] == pytest.approx(100 * expected)


def test_nothing_to_score() -> None:
    labels, category, scores, heads = example()
    nothing = classification_report(SCHEMA, labels * 0, category * 0 - 1, HeadScores(scores, heads))
    assert (nothing.category, nothing.types, nothing.all_micro) == (None, (), None)
    one = labels.copy()
    one[:, SCHEMA.slice_of(0)] = 0
    names = [s.name for s in classification_report(SCHEMA, one, category, HeadScores(scores)).types]
    assert names == ["category", "style"]
    with pytest.raises(UsageError, match="both must be"):
        recall_score("x", scores, labels[:, :3] == 1)
    scores[4, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        recall_score("x", scores, labels == 1)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_share_of_the_labels_is_told(share: float) -> None:
    labels = example(5000)[0]
    labels[labels == 0] = -1
    shown = draw_known_labels(labels, SCHEMA, share, seed=1)
    assert ((shown == labels) | (shown == 0)).all()
    assert (shown != 0).mean() == pytest.approx(share, abs=0.01)
    group = shown[:, SCHEMA.slice_of(1)] != 0
    assert (group.all(1) == group.any(1)).all()  # siblings of one value are told together
    np.testing.assert_array_equal(shown, draw_known_labels(labels, SCHEMA, share, seed=1))
    if 0 < share < 1:
        assert (shown != draw_known_labels(labels, SCHEMA, share, seed=2)).any()
        more = draw_known_labels(labels, SCHEMA, share + 0.25, seed=1)
        assert (more[shown != 0] != 0).all()


@pytest.mark.shared
def test_published_figures_are_those_of_the_paper() -> None:
    if not PAPER.is_dir():
        pytest.skip("the paper's text is not beside the checkout (../shared/seed)")
    text = next(PAPER.glob("*.txt")).read_text()
    names = {"M2Fashion w/o ASA": "Ours w/o ASA", "M2Fashion w/o ACA": "Ours w/o ACA"}
    names |= {"M2Fashion": "Ours", "category only": "Category only"}
    names |= {"attribute only": "Attribute only", "category + attribute": "Category + attribute"}
    for table in (TABLE_1, TABLE_2):
        for method, values in table.rows.items():
            cells = r"\t".join("-" if v is None else f"{v:.2f}" for v in values)
            assert len(values) == 2 * len(table.columns)
            line = rf"^{re.escape(names.get(method, method))}\t{cells}\t*$"
            assert re.search(line, text, re.MULTILINE), method
