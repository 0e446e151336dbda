"""Views by search: exact against sorting, approximate against exact."""

from __future__ import annotations

import os
from pathlib import Path

import faiss
import numpy as np
import pytest
from clustered import assert_is_brute, brute, clustered
from numpy.typing import NDArray

from indexer import approximate
from indexer.approximate import ApproximateSource, build, tune, write_index
from indexer.exact_search import all_cosines
from indexer.flat_file import FlatFileWriter, map_flat
from indexer.index_choice import choose_index
from indexer.view import View
from training.errors import ResourceError, UsageError

ROWS, DIM = 4000, 32


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """Mapped, as a view's are; rows 100, 200 and 300 are the same picture."""
    own = clustered(ROWS + 200, DIM)[:ROWS]
    own[[200, 300]] = own[100]
    path = tmp_path_factory.mktemp("flat") / "view"
    with FlatFileWriter(path, ROWS, DIM) as writer:
        writer.append(own)
    with path.open("rb") as handle:
        mapped = map_flat(handle, ROWS, DIM)
    np.testing.assert_array_equal(mapped, own)
    return mapped


@pytest.fixture
def queries() -> NDArray[np.float32]:
    """Of the same clusters, and not among the vectors."""
    return clustered(ROWS + 200, DIM)[ROWS:]


@pytest.mark.parametrize("k", [1, 10, ROWS])
@pytest.mark.parametrize("count", [1, 40])
def test_flat_search_is_sorting(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, count: int
) -> None:
    assert_is_brute(View("k", "n", vectors), queries[:count], k)


def test_ties_go_by_row_wherever_the_cut_falls(vectors: NDArray[np.float32]) -> None:
    view = View("k", "n", vectors)
    for query in (vectors[100], vectors[300]):
        for k in (1, 2, 3):
            for count in (1, 5):
                _, rows = view.search(np.repeat(query[None], count, 0), k)
                assert (rows == np.array([100, 200, 300])[:k]).all()
    same = View("k", "n", np.repeat(vectors[:1], 500, 0))  # more ties than candidates beyond
    for count in (1, 5):
        _, rows = same.search(np.repeat(vectors[:1], count, 0), 7)
        assert (rows == np.arange(7)).all()


def test_corners(vectors: NDArray[np.float32]) -> None:
    view = View("k", "n", vectors[:3])
    assert view.search(vectors[:2], 10)[1].shape == (2, 3)
    assert view.search(vectors[:0], 10)[0].shape == (0, 3)
    assert View("k", "n", vectors[:0]).search(vectors[:2], 10)[1].shape == (2, 0)
    with pytest.raises(UsageError, match="k must be at least 1, not 0"):
        view.search(vectors[:1], 0)
    assert (len(view), view.nbytes) == (3, 3 * DIM * 4)


def test_cosines_of_all_rows(vectors: NDArray[np.float32]) -> None:
    assert not vectors.flags.aligned
    np.testing.assert_allclose(
        View("k", "n", vectors).scores(vectors[5]), (vectors * vectors[5]).sum(1), atol=1e-6
    )
    many = np.tile(clustered(2000, 8), (20, 1))  # enough for two threads
    np.testing.assert_allclose(all_cosines(many, many[7]), (many * many[7]).sum(1), atol=1e-6)


@pytest.mark.parametrize("factory", ["PQ8x4fs", "IVF16,PQ8x4fs", "IVF16,Flat", "HNSW8"])
def test_recall_is_what_was_measured_and_asked_for(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], factory: str
) -> None:
    choice = choose_index(ROWS, DIM, factory=factory)
    index = build(vectors, factory)
    tuned = tune(index, vectors, choice, 0.95)
    assert tuned.reached
    assert 0.95 <= tuned.recall <= 1
    assert (tuned.nprobe > 0) == ("IVF" in factory)
    source = ApproximateSource(index, factory, tuned.refine, tuned.nprobe, 1)
    view = View("k", "n", vectors, lambda: source)
    scores, rows = view.search(queries, 10)
    hits = 0
    for query, own, found in zip(queries, scores, rows, strict=True):
        _, which = brute(vectors, query, 10)
        hits += len(set(found) & set(which))
        # Whatever was missed, cosines are exact and in order, ties by row.
        np.testing.assert_array_equal(own, (vectors[found] * query).sum(1))
        assert sorted(zip(-np.round(own, 6), found, strict=True))[0][1] == found[0]
        assert (np.diff(np.round(own, 6)) <= 0).all()
    # Graphs are flattered by being measured with their own vectors.
    assert hits / (10 * len(queries)) > (0.9 if factory == "HNSW8" else 0.94)
    again = tune(build(vectors, factory), vectors, choice, 0.95)
    assert again == tuned  # fixed seeds


def test_a_target_out_of_reach_is_said(vectors: NDArray[np.float32]) -> None:
    noise = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    choice = choose_index(ROWS, DIM, factory="PQ1x4fs")
    tuned = tune(build(noise, "PQ1x4fs"), noise, choice, 0.98)
    assert not tuned.reached
    assert tuned.refine == 128
    assert tuned.recall < 0.98


def test_so_many_hits_that_all_are_read(vectors: NDArray[np.float32]) -> None:
    source = ApproximateSource(build(vectors, "PQ8x4fs"), "PQ8x4fs", 8, 0, 1)
    view = View("k", "n", vectors, lambda: source)
    assert_is_brute(view, vectors[:3], 1000)
    exact = view.search(vectors[:5], 10, exact=True)[1]
    np.testing.assert_array_equal(exact, View("k", "n", vectors).search(vectors[:5], 10)[1])


def test_threads_share_lists_or_queries_and_find_the_same(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    index = build(vectors, "IVF16,SQ8")
    source = ApproximateSource(index, "IVF16,SQ8", 8, 5, 1)
    together = source.candidates(queries, 30)
    assert index.parallel_mode == 0
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        for number in range(len(queries)):
            scores, rows = source.candidates(queries[number : number + 1], 30)
            assert index.parallel_mode == 1
            np.testing.assert_allclose(scores[0], together[0][number], atol=1e-6)
            # Which of several equal ones is the last is open.
            assert len(set(rows[0]) & set(together[1][number])) >= 29
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.parametrize("k", [3, 10, 90])
def test_roughly_nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> None:
    asked: list[int] = []

    class Counting(ApproximateSource):
        def candidates(
            self, queries: NDArray[np.float32], count: int
        ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            asked.append(count)
            return super().candidates(queries, count)

    source = Counting(build(vectors, "PQ8x4fs"), "PQ8x4fs", 6, 0, 1)
    view = View("k", "n", vectors, lambda: source)
    for query in queries[:20]:
        found = view.search(query[None], k, rough=True)[1][0]
        assert len(set(found.tolist())) == k
        if k < 60:
            ten = min(k, 10)
            np.testing.assert_array_equal(found[:ten], view.search(query[None], ten)[1][0])
        cosines = (vectors[found] * query).sum(1)
        assert (np.diff(np.round(cosines, 6)) <= 0).all()
    assert set(asked) == {max(60, k)}  # as many as for ten hits
    flat = View("k", "n", vectors)
    for own in (flat, View("k", "n", vectors[:70], lambda: source)):  # whole, if that is less work
        expected = brute(own.vectors, queries[0], min(k, len(own)))[1]
        np.testing.assert_array_equal(own.search(queries[:1], k, rough=True)[1][0], expected)


def test_lists_that_hold_too_few(vectors: NDArray[np.float32]) -> None:
    few = np.ascontiguousarray(vectors[:2000])
    source = ApproximateSource(build(few, "IVF512,Flat"), "IVF512,Flat", 1, 1, 1)
    rows = View("k", "n", few, lambda: source).search(few[:20], 60)[1]
    assert (rows >= 0).all()
    assert all(len(set(row)) == 60 for row in rows.tolist())


def test_training_on_too_few_rows_names_the_factory(vectors: NDArray[np.float32]) -> None:
    for factory in ("IVF64,Flat", "PQ8"):
        with pytest.raises(UsageError, match=factory):
            build(np.ascontiguousarray(vectors[:20]), factory)


def test_memory_is_bounded_by_sample_and_chunk(
    vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(vectors, "PQ8x4fs")
    monkeypatch.setattr(approximate, "_CHUNK", 700)
    parts = build(vectors, "PQ8x4fs")
    assert faiss.serialize_index(whole).tobytes() == faiss.serialize_index(parts).tobytes()


def test_fault_05_a_full_disk_is_a_resource_error(vectors: NDArray[np.float32]) -> None:
    index = build(vectors, "PQ8x4fs")
    with pytest.raises(ResourceError, match="disk is full"):
        write_index(index, Path("/dev/full"))


def test_fault_16_a_forked_child_opens_its_own(vectors: NDArray[np.float32]) -> None:
    opened: list[int] = []

    def source() -> ApproximateSource:
        opened.append(os.getpid())
        return ApproximateSource(build(vectors[:100], "Flat"), "Flat", 1, 0, 1)

    view = View("k", "n", vectors, source)
    assert not opened
    _ = view.source, view.source
    assert len(opened) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        _ = view.source
    assert len(opened) == 2
