from pathlib import Path

import numpy as np
import pytest

from retrieval.evaluation.attribute_map import capped, evaluate_attributes, queries_and_candidates
from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.errors import DataError
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("sleeve", ("long", "short", "none")),
        Attribute("colour", ("red", "blue", "green", "white"), multi=True),
    )
)


def toy(seed=0, n=24, protocols=None):
    """Random labels; sleeve single-valued or unknown, colour one to three values or unknown."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, SCHEMA.size), dtype=np.int8)
    for row in range(n):
        if rng.random() < 0.8:
            labels[row, :3] = -1
            labels[row, rng.integers(3)] = 1
        if rng.random() < 0.8:
            labels[row, 3:] = -1
            labels[row, 3 + rng.choice(4, size=rng.integers(1, 4), replace=False)] = 1
    splits = np.array(["train"] * 4 + ["test"] * (n - 4))
    return Dataset(
        name="toy",
        root=Path("."),
        schema=SCHEMA,
        paths=[f"{i}.jpg" for i in range(n)],
        labels=labels,
        category=np.full(n, -1, dtype=np.int64),
        category_names=(),
        splits=splits,
        protocols=protocols or {},
    )


def embedder(dataset, seed=0):
    """Vectors that depend on the condition, rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((len(dataset), SCHEMA.size, 3))

    def embed(condition, rows):
        vectors = np.round(base[rows].transpose(0, 2, 1) @ condition)
        vectors[:, 0] += 0.5
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return embed


def plain_ap(similarities, relevant):
    order = sorted(range(len(relevant)), key=lambda i: (-similarities[i], i))
    hits, total = 0, 0.0
    for rank, i in enumerate(order, start=1):
        hits += relevant[i]
        total += relevant[i] * hits / rank
    return 100 * total / hits if hits else 0.0


def plain_map(dataset, attribute, mode, embed):
    """The specification as loops: leave-one-out over the test split, strict and any."""
    where = SCHEMA.slice_of(attribute)
    labelled = [r for r in dataset.rows_of("test") if (dataset.labels[r, where] == 1).any()]

    def ap(row, condition, relevant):
        others = np.array([r for r in labelled if r != row])
        vectors = embed(condition, others).astype(np.float64)
        query = embed(condition, np.array([row]))[0].astype(np.float64)
        return plain_ap((vectors @ query).astype(np.float32), [bool(relevant(r)) for r in others])

    strict, loose = [], []
    for row in labelled:
        own = [v for v in range(where.start, where.stop) if dataset.labels[row, v] == 1]
        kind = SCHEMA.type_condition(attribute)
        for v in own:
            condition = kind if mode == "type" else SCHEMA.value_condition([v])
            strict.append(ap(row, condition, lambda r, v=v: dataset.labels[r, v] == 1))
        loose.append(ap(row, kind, lambda r, own=own: (dataset.labels[r, own] == 1).any()))
    return strict, loose


@pytest.mark.parametrize("mode", ["type", "value"])
@pytest.mark.parametrize("seed", [0, 1])
def test_leave_one_out_equals_plain_loops(mode, seed):
    dataset = toy(seed)
    embed = embedder(dataset, seed)
    report = evaluate_attributes(dataset, "test", mode, embed)
    parts = [plain_map(dataset, a, mode, embed) for a in range(2)]
    for score, (strict, _) in zip(report.attributes.values(), parts, strict=True):
        assert score.queries == len(strict)
        assert score.map == pytest.approx(np.mean(strict))
        assert score.ci.low <= score.map <= score.ci.high
        assert score.lift == pytest.approx(score.map / score.chance)
    pooled = parts[0][0] + parts[1][0]
    assert report.all.queries == len(pooled)
    assert report.all.map == pytest.approx(np.mean(pooled))
    assert report.attribute_mean == pytest.approx(np.mean([np.mean(p[0]) for p in parts]))
    colour = report.attributes["colour"]
    if mode == "type":
        assert report.attributes["sleeve"].map_any is None
        assert colour.map_any == pytest.approx(np.mean(parts[1][1]))
        assert report.all.map_any == pytest.approx(np.mean(parts[0][0] + parts[1][1]))
    else:
        assert colour.map_any is None


def test_a_random_embedding_scores_about_chance():
    dataset = toy(3, n=400)
    noise = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    report = evaluate_attributes(dataset, "test", "type", lambda _, rows: noise[rows])
    assert report.all.map == pytest.approx(report.all.chance, rel=0.03)
    assert report.all.map_any == pytest.approx(report.all.chance_any, rel=0.03)


def test_a_perfect_embedding_scores_100():
    dataset = toy(4)
    perfect = (dataset.labels[:, :3] == 1).astype(np.float32)
    report = evaluate_attributes(dataset, "test", "type", lambda _, rows: perfect[rows])
    sleeve = report.attributes["sleeve"]
    lonely = sleeve.queries_without_relevant
    assert sleeve.map == pytest.approx(100 * (sleeve.queries - lonely) / sleeve.queries)


def published_toy():
    labels = toy().labels.copy()
    labels[:] = 0
    labels[5, [3, 4]] = 1  # row 5 is red and blue; the list names red alone
    queries = RetrievalList(np.array([4, 5, 6]), np.array([0, 1, 0]), np.array([1, 0, 2]))
    candidates = RetrievalList(
        np.array([9, 8, 7, 10, 4]), np.array([0, 0, 1, 1, 0]), np.array([1, 0, 1, 0, 1])
    )
    dataset = toy(protocols={"test": RetrievalProtocol(queries, candidates)})
    dataset.labels[:] = labels
    return dataset


def test_published_lists_by_hand():
    report = evaluate_attributes(
        published_toy(), "test", "type", lambda _, rows: np.ones((len(rows), 1), dtype=np.float32)
    )
    assert not report.leave_one_out
    sleeve, colour = report.attributes.values()
    # Candidates in order of rows: 4 short, 8 long, 9 short. Query 4 (short) does not find itself:
    # 9 at rank 2 of 8, 9. Query 6 (none) has nothing relevant.
    assert (sleeve.queries, sleeve.candidates, sleeve.queries_without_relevant) == (2, 3, 1)
    assert sleeve.map == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert sleeve.chance == pytest.approx(100 * (0.75 + 0) / 2)
    # Query 5 (red): 10 is red, at rank 2 of 7, 10; any shared value: 7 (blue) counts too.
    assert colour.map == pytest.approx(50)
    assert colour.map_any == pytest.approx(100)
    assert report.all.map == pytest.approx(100 * (1 / 2 + 0 + 1 / 2) / 3)
    assert report.all.queries_without_relevant == 1


def test_identical_vectors_tie_wherever_they_stand():
    # A matrix product may add up equal columns in different orders; the ranking must not show it.
    dataset = toy(5, n=203)
    vector = np.random.default_rng(0).standard_normal(301).astype(np.float32)
    vector /= np.linalg.norm(vector)
    same = evaluate_attributes(dataset, "test", "type", lambda _, r: np.tile(vector, (len(r), 1)))
    ones = evaluate_attributes(dataset, "test", "type", lambda _, r: np.ones((len(r), 1), "f4"))
    assert same.all.map == ones.all.map


def test_max_queries_keeps_the_share_of_every_attribute_and_the_candidates():
    dataset = toy(6, n=300)
    embed = embedder(dataset)
    whole = evaluate_attributes(dataset, "test", "type", embed)
    part = evaluate_attributes(dataset, "test", "type", embed, seed=1, max_queries=60)
    again = evaluate_attributes(dataset, "test", "type", embed, seed=1, max_queries=60)
    assert part == again
    assert 60 <= part.all.queries <= 62
    for few, many in zip(part.attributes.values(), whole.attributes.values(), strict=True):
        assert few.queries_available == many.queries
        assert few.candidates == many.candidates
        assert few.queries / part.all.queries == pytest.approx(
            many.queries / whole.all.queries, abs=0.03
        )
    task = queries_and_candidates(dataset, "test", 0)
    assert capped(task, len(task.query_rows), seed=0) is task


def test_max_queries_gives_a_rare_attribute_no_more_weight_than_it_has():
    dataset = toy(6, n=300)
    rare = np.flatnonzero(dataset.labels[:, 3:].any(axis=1) & (dataset.splits == "test"))
    dataset.labels[rare[2:], 3:] = 0  # two images have a colour
    embed = embedder(dataset)
    part = evaluate_attributes(dataset, "test", "type", embed, max_queries=4)
    shares = [s.queries_available / part.all.queries_available for s in part.attributes.values()]
    assert shares[1] < 0.05
    assert part.attributes["colour"].queries == 1
    for figure in ("map", "chance"):
        mean = np.dot(shares, [getattr(s, figure) for s in part.attributes.values()])
        assert getattr(part.all, figure) == pytest.approx(mean, rel=1e-12)
    assert part.all.ci.low <= part.all.map <= part.all.ci.high
    enough = evaluate_attributes(dataset, "test", "type", embed, max_queries=1000)
    assert enough == evaluate_attributes(dataset, "test", "type", embed)


def test_refusals():
    dataset = toy()
    embed = embedder(dataset)
    with pytest.raises(DataError, match=r"'valid'.*train \(4\), test \(20\)"):
        evaluate_attributes(dataset, "valid", "type", embed)
    with pytest.raises(DataError, match="NaN"):
        evaluate_attributes(
            dataset, "test", "type", lambda _, r: np.full((len(r), 2), np.nan, np.float32)
        )
    dataset.labels[:] = 0
    with pytest.raises(DataError, match="no image labelled"):
        evaluate_attributes(dataset, "test", "type", embed)
