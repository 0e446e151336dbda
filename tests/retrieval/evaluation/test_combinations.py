from itertools import combinations as subsets
from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.combinations import (
    Combination,
    candidate_rows,
    draw_combinations,
    draw_queries,
    evaluate_combinations,
)
from retrieval.evaluation.scorer import FloorScorer, has_all
from training.datasets.dataset import Dataset, RetrievalList
from training.datasets.labels import states_of
from training.errors import DataError
from training.schema import Attribute, Schema


class Ranked(FloorScorer):
    """Scores by a function of the query and the rows, and writes down what it was asked."""

    ranked_by = "by hand"

    def __init__(self, rows, score):
        self.rows = np.arange(rows)
        self.score = score
        self.asked = []

    def named(self, query, wanted, unwanted=(), keep=None):
        self.asked.append((query, tuple(wanted)))
        return self.score(self.rows).astype(np.float32)


SCHEMA = Schema(
    (
        Attribute("neck", ("v", "round")),
        Attribute("pattern", ("floral", "plain", "striped")),
        Attribute("length", ("long", "short")),
    )
)


def dataset_of(values, splits=None):
    """One row an image: value of neck, pattern and length, -1 unknown."""
    values = np.array(values, dtype=np.int64)
    n, known = len(values), np.nonzero(values >= 0)
    return Dataset(
        name="toy",
        root=Path("."),
        schema=SCHEMA,
        paths=[f"{i}.jpg" for i in range(n)],
        labels=states_of(SCHEMA, [RetrievalList(*known, values[known])], n),
        category=np.full(n, -1, dtype=np.int64),
        category_names=(),
        splits=np.full(n, "test") if splits is None else np.array(splits),
    )


def random_dataset(n=200, seed=0):
    rng = np.random.default_rng(seed)
    values = np.stack([rng.integers(-1, len(a.values), size=n) for a in SCHEMA.attributes], axis=1)
    return dataset_of(values, rng.choice(["train", "test"], size=n))


def test_draws_exactly_the_combinations_that_enough_images_have():
    dataset = random_dataset()
    rows = dataset.rows_of("test")
    want = {}
    for size in (2, 3):
        for values in subsets(range(SCHEMA.size), size):
            if len({int(SCHEMA.attribute_of[v]) for v in values}) == size:
                count = int((dataset.labels[rows][:, list(values)] == 1).all(axis=1).sum())
                if count > 5:
                    want[values] = count
    drawn = draw_combinations(dataset, "test", 10_000)
    assert {c.values: c.relevant for c in drawn} == want
    assert len(drawn) == len(want)
    assert {len(c.values) for c in drawn} == {2, 3}


def test_the_draw_is_deterministic_takes_turns_of_sizes_and_depends_on_the_seed():
    dataset = random_dataset(400)
    drawn = draw_combinations(dataset, "test", 6, seed=1)
    assert drawn == draw_combinations(dataset, "test", 6, seed=1)
    assert drawn != draw_combinations(dataset, "test", 6, seed=2)
    assert [len(c.values) for c in drawn] == [2, 3, 2, 3, 2, 3]
    assert draw_combinations(dataset, "test", 4, seed=1) == drawn[:4]


def test_a_combination_that_every_image_has_leaves_no_query_for_but():
    dataset = dataset_of([(0, 0, 0)] * 9)
    assert draw_combinations(dataset, "test", 5) == []


def test_queries_have_the_values_or_are_known_to_lack_one():
    dataset = random_dataset(400)
    for combination in draw_combinations(dataset, "test", 6):
        drawn = draw_queries(dataset, "test", combination, 8, seed=0)
        assert has_all(dataset, drawn["same"], combination.values).all()
        assert not has_all(dataset, drawn["but"], combination.values).any()
        known = candidate_rows(dataset, "test", combination.values)
        assert set(drawn["same"]) | set(drawn["but"]) <= set(known)
        assert len(drawn["same"]) == min(8, combination.relevant)
        assert (dataset.splits[known] == "test").all()


def test_scores_by_hand():
    # Neck v and pattern floral; rows 0 and 1 have both, row 2 is v striped, row 3 round floral;
    # row 4's neck is unknown, so it is neither a candidate nor a query.
    dataset = dataset_of(
        [(0, 0, 0), (0, 0, 1), (0, 2, 0), (1, 0, -1), (-1, 0, 0)],
    )
    combination = Combination((0, 2), 2)
    scorer = Ranked(5, lambda rows: -rows)  # ranks by row: 0, 1, 2, 3
    report = evaluate_combinations(dataset, "test", scorer, [combination], 10)
    assert {a[1] for a in scorer.asked} == {(0, 2)}
    assert sorted(a[0] for a in scorer.asked) == [0, 1, 2, 3]
    assert report.ranked_by == "by hand"
    same, but = report.same, report.but

    # same: query 0 ranks 1, 2, 3 with 1 relevant; query 1 ranks 0, 2, 3 with 0 relevant.
    assert same.queries == 2
    assert same.map == pytest.approx(100)
    # One relevant among three: AP is 1, 1/2 or 1/3.
    assert same.chance == pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 3)
    assert same.precision_at_10 == pytest.approx(0.1)
    assert same.precision_ceiling == pytest.approx(0.1)
    assert same.precision_chance == pytest.approx(0.1)

    # but: query 2 ranks 0, 1, 3 and query 3 ranks 0, 1, 2, both with 0 and 1 relevant.
    assert but.queries == 2
    assert but.precision_at_10 == pytest.approx(0.2)
    assert but.precision_ceiling == pytest.approx(0.2)
    # Length is the only attribute that was not named. Query 2 (long): row 0 is long, row 1 short,
    # row 3 unknown, so 1 of 2. Query 3's own length is unknown, so it is left out.
    assert but.keep_at_10 == pytest.approx(0.5)
    assert but.keep_chance == pytest.approx(0.5)


def test_only_the_first_ten_hits_count_and_the_worst_ranking_finds_none():
    relevant, others = [(0, 0, 0)] * 7, [(1, 1, 1)] * 13
    dataset = dataset_of(relevant + others)
    combination = Combination((0, 2), 7)
    best = evaluate_combinations(dataset, "test", Ranked(20, lambda r: -r), [combination], 20)
    # Six remain beside the query; a query that lacks the values finds all seven.
    assert best.same.precision_at_10 == pytest.approx(0.6) == best.same.precision_ceiling
    assert best.but.precision_at_10 == pytest.approx(0.7) == best.but.precision_ceiling
    assert best.same.precision_chance == pytest.approx(6 / 19)
    # The seven long ones come first, three of ten hits are short like the query; 12 of 19 are.
    assert best.but.keep_at_10 == pytest.approx(0.3)
    assert best.but.keep_chance == pytest.approx(12 / 19)
    worst = evaluate_combinations(dataset, "test", Ranked(20, lambda r: r), [combination], 20)
    assert worst.same.precision_at_10 == 0
    assert worst.but.keep_at_10 == pytest.approx(1)
    # The six relevant ones stand at ranks 14 to 19.
    assert worst.same.map == pytest.approx(100 * np.mean([(i + 1) / (14 + i) for i in range(6)]))


def test_chance_is_what_random_rankings_score():
    dataset = random_dataset(400, seed=5)
    rng = np.random.default_rng(0)
    drawn = draw_combinations(dataset, "test", 8)
    scorer = Ranked(400, lambda rows: rng.random(len(rows)))
    report = evaluate_combinations(dataset, "test", scorer, drawn, 60)
    assert report.same.map == pytest.approx(report.same.chance, rel=0.1)
    assert report.same.precision_at_10 == pytest.approx(report.same.precision_chance, rel=0.15)
    assert report.but.precision_at_10 == pytest.approx(report.but.precision_chance, rel=0.15)
    assert report.but.keep_at_10 == pytest.approx(report.but.keep_chance, rel=0.1)


def test_a_split_without_images_is_refused():
    with pytest.raises(DataError, match="no images in split"):
        draw_combinations(random_dataset(), "valid", 3)
