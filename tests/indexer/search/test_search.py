"""The search of descriptors, by each of its sources, against all products by numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tiny_gallery import SCHEMA, build, gallery, tiny_checkpoint, write_images

from indexer.progress import Silent
from indexer.search import choose as measure_recall
from indexer.search import index as search
from indexer.search.choose import (
    build_search,
    carry_lists,
    draw_filters,
    measure_probes,
    tenth_best,
)
from indexer.search.flat import GRAPH, FlatBytes, in_digits
from indexer.search.gpu import TorchBytes
from indexer.search.index import SearchIndex, Source, open_search
from indexer.search.lists import InvertedLists, fill_lists, nearest_centre, train_cells
from indexer.store.manifest import SearchEntry
from indexer.store.store import open_store
from training.descriptor import DescriptorLayout

ROWS, WIDTH = 25_000, 48  # enough for several cores


def some_bytes(rows: int = ROWS, seed: int = 0) -> NDArray[np.uint8]:
    """Clustered descriptors, some of them many times over."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(120, 50, (40, WIDTH))[draw.integers(0, 40, rows)]
    codes = np.clip(centres + draw.normal(0, 25, (rows, WIDTH)), 0, 255).astype(np.uint8)
    codes[50:200] = codes[7]
    codes[rows // 2 : rows // 2 + 40] = codes[7]
    return codes


def in_blocks(codes: NDArray[np.uint8]) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    return lambda: iter([codes[:1000], codes[1000:1003], codes[1003:]])


class DescriptorsAlone:
    """As much of a store as measuring recall takes."""

    schema = SCHEMA

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self.blocks, self._codes = in_blocks(codes), codes

    def __len__(self) -> int:
        return len(self._codes)

    def descriptors_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._codes[rows]


def some_weights(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    weights = np.random.default_rng(1).normal(size=(6, WIDTH)).astype(np.float32)
    weights[0] = codes[7].astype(np.float32) - 120  # of which there are 191
    weights[1] = 0  # all rows are equal
    weights[2] = np.rint(weights[2])  # sums without rounding, so more ties
    return weights


def lists_of(codes: NDArray[np.uint8], lists: int = 32) -> InvertedLists:
    blocks = in_blocks(codes)
    into, centres = train_cells(blocks(), len(codes), lists, np.eye(WIDTH, dtype=np.float32))
    own = nearest_centre(blocks(), centres, into)
    return InvertedLists(fill_lists(blocks(), WIDTH, own, lists), 2, 4)


def reference(
    codes: NDArray[np.uint8], weights: NDArray[np.float32], allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Allowed rows and their scores, best first, ties by row."""
    scores = (codes.astype(np.float64) * weights.astype(np.float64)).sum(1).astype(np.float32)
    rows = np.arange(len(codes)) if allowed is None else np.flatnonzero(allowed)
    order = np.lexsort((rows, -scores[rows]))
    return rows[order], scores[rows[order]]


SOURCES: dict[str, Callable[[NDArray[np.uint8]], Source]] = {
    "flat": lambda codes: FlatBytes(in_blocks(codes)()),
    "torch": lambda codes: TorchBytes(in_blocks(codes)(), *codes.shape, "cpu"),
    "lists": lists_of,
}


def index_of(codes: NDArray[np.uint8], source: str | InvertedLists) -> SearchIndex:
    """Over all of the codes; what lists may miss, the pass over all of them does not."""
    found = SOURCES[source](codes) if isinstance(source, str) else source
    every = (lambda: FlatBytes(in_blocks(codes)())) if isinstance(found, InvertedLists) else None
    return SearchIndex(found, lambda rows: codes[rows], len(codes), "", every)


@pytest.mark.parametrize("name", SOURCES)
def test_the_best_rows_are_those_of_all_products(name: str) -> None:
    codes = some_bytes()
    weights = some_weights(codes)
    index = index_of(codes, name)
    draw = np.random.default_rng(2).random(ROWS)
    for allowed in (None, draw < 0.4, draw < 0.01, draw < 0):
        for k in (1, 10, 300):
            rows, scores = index.search(weights, k, allowed, exact=True)
            assert (rows.shape, rows.dtype, scores.dtype) == ((6, k), np.int64, np.float32)
            for query in range(6):
                right, expected = reference(codes, weights[query], allowed)
                found = min(k, len(right))
                assert rows[query, :found].tolist() == right[:k].tolist()
                np.testing.assert_array_equal(scores[query, :found], expected[:k])
                assert (rows[query, found:] == -1).all()
                assert (scores[query, found:] == -np.inf).all()
    some = np.array([9, 3, 3, 24_999])
    expected = (codes[some].astype(float) * weights[3]).sum(1)
    np.testing.assert_allclose(index.scores_of(weights[3], some), expected, rtol=1e-6)


def test_the_graph_of_products() -> None:
    value, node = helper.make_tensor_value_info, helper.make_node
    nodes = [
        node("MatMulInteger", ["codes", "digits"], ["sums"]),
        node("Cast", ["sums"], ["numbers"], to=TensorProto.FLOAT),
        node("Gemm", ["places", "numbers"], ["scores"], transB=1),
    ]
    given = [
        value("codes", TensorProto.UINT8, ["rows", "width"]),
        value("digits", TensorProto.INT8, ["width", "columns"]),
        value("places", TensorProto.FLOAT, ["queries", "columns"]),
    ]
    scores = [value("scores", TensorProto.FLOAT, ["queries", "rows"])]
    graph = helper.make_graph(nodes, "products", given, scores)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert onnx.load(GRAPH) == model


def test_weights_in_digits() -> None:
    weights = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    weights[1] *= 1e-20
    weights[2] = 0
    weights[3, 1:] *= 1e-6
    digits, places = in_digits(weights)
    assert (np.abs(digits.astype(int)) <= 64).all()  # two of them times 255 fit in 16 bits
    found = places.astype(np.float64) @ digits.T
    worst = np.abs(weights).max(1, keepdims=True) * 2.0**-24  # of places, which are float32
    assert (np.abs(found - weights) <= worst).all()


@pytest.mark.parametrize("name", SOURCES)
def test_candidates_hold_the_best_and_no_row_that_is_not_allowed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "GATHER", 10)
    codes = some_bytes()
    weights = some_weights(codes)[3:]
    lists = lists_of(codes)
    lists.probes = lists.filtered_probes = lists.lists  # all
    index = index_of(codes, lists if name == "lists" else name)
    for allowed in (None, np.random.default_rng(2).random(ROWS) < 0.01):
        for count in (20, 5_000):  # more than are allowed
            for own, rows in zip(weights, index.candidates(weights, count, allowed), strict=True):
                right, scores = reference(codes, own, allowed)
                least = scores[: min(count, len(right))][-1]
                assert len(set(rows.tolist())) == len(rows) == min(count, len(right))
                assert set(right[scores > least + 1e-2].tolist()) <= set(rows.tolist())
                assert allowed is None or allowed[rows].all()


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", ["flat", "torch"])
def test_more_than_there_are(name: str, rows: int) -> None:
    codes = some_bytes(300)[100 : 100 + rows]
    index = SearchIndex(SOURCES[name](codes), lambda own: codes[own], rows, "")
    weights = some_weights(some_bytes(300))
    found, _ = index.search(weights, 150)
    for query in range(6):
        right, _ = reference(codes, weights[query], None)
        assert found[query].tolist() == [*right.tolist(), *[-1] * (150 - rows)]


def test_a_list_of_which_one_row_is_allowed_is_read() -> None:
    codes = some_bytes()
    lists = lists_of(codes)
    lists.filtered_probes = lists.lists
    index = index_of(codes, lists)
    own = lists.list_of_rows()
    for number in range(0, lists.lists, 5):
        inside = np.flatnonzero(own == number)
        allowed = own != number
        allowed[inside[-1]] = True  # one of some twenty thousand
        weights = codes[inside[-1:]].astype(np.float32) - 120
        right, _ = reference(codes, weights[0], allowed)
        assert index.search(weights, 1, allowed)[0][0, 0] == right[0]


def test_lists_read_few_and_all_where_a_filter_leaves_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "GATHER", 10)
    codes = some_bytes()
    weights = some_weights(codes)[3:]
    lists = lists_of(codes)
    index = index_of(codes, lists)
    near, _ = index.search(weights, 50)
    right = [reference(codes, own, None)[0][:50] for own in weights]
    shares = [len(set(a) & set(b)) / 50 for a, b in zip(near.tolist(), right, strict=True)]
    assert 0.1 < np.mean(shares) <= 1
    lists.probes = lists.lists
    assert np.array_equal(index.search(weights, 50)[0], right)
    rare = np.zeros(ROWS, dtype=bool)
    rare[::500] = True  # 50 rows in 32 lists, of which 4 are read
    found, _ = index.search(weights, 50, rare)
    for own, rows in zip(weights, found, strict=True):
        assert rows.tolist() == reference(codes, own, rare)[0].tolist()


def test_lists_give_back_what_they_were_made_from() -> None:
    codes = some_bytes(2000)
    draw = np.random.default_rng(5)
    into = draw.normal(size=(WIDTH, 6)).astype(np.float32)
    centres = draw.normal(size=(8, 6)).astype(np.float32) * 500
    lists = nearest_centre(in_blocks(codes)(), centres, into)
    distances = ((codes.astype(float) @ into)[:, None] - centres) ** 2
    distances = distances.sum(2)
    assert np.array_equal(lists, distances.argmin(1))
    lists[lists == 2] = 3  # one of them is empty
    made = InvertedLists(fill_lists(in_blocks(codes)(), WIDTH, lists, 8), 1, 1)
    centroids = made.centroids()
    for number in range(8):
        own = codes if number == 2 else codes[lists == number]
        if len(own):
            np.testing.assert_allclose(centroids[number], own.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(made.list_of_rows(), lists)


def test_cells_are_of_what_requests_tell_apart() -> None:
    """Rows that differ only where no request looks are in one cell, others apart."""
    draw = np.random.default_rng(6)
    kinds = draw.integers(0, 4, 3000)
    codes = draw.integers(0, 256, (3000, WIDTH), dtype=np.uint8)
    codes[:, :2] = np.array([[0, 0], [0, 255], [255, 0], [255, 255]])[kinds]
    requests = np.zeros((100, WIDTH), np.float32)
    requests[:, :2] = draw.normal(size=(100, 2))
    into, centres = train_cells(in_blocks(codes)(), 3000, 4, requests)
    lists = nearest_centre(in_blocks(codes)(), centres, into)
    assert len({(a, b) for a, b in zip(kinds.tolist(), lists.tolist(), strict=True)}) == 4


def test_the_tenth_best_and_the_probes_that_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "GATHER", 40)
    monkeypatch.setattr(measure_recall, "GATHER", 40)
    codes = some_bytes(6000)
    store = DescriptorsAlone(codes)
    filters = draw_filters(store)
    assert [own.sum() for own in filters] == np.geomspace(41, 3000, 20).astype(int).tolist()
    for own in filters:  # each has the highest chances of some value
        values = range(SCHEMA.size)
        assert any(codes[own, v].min() >= codes[~own, v].max() for v in values)
    weights = some_weights(codes)[2:]
    lists = lists_of(codes)
    found = measure_probes(lists, store, weights, SearchEntry("IVF32", target=0.9))
    index, recalls = index_of(codes, lists), []
    for allowed in (None, *filters):
        tenth = [reference(codes, own, allowed)[1][9] for own in weights]
        assert tenth_best(index, weights, allowed).tolist() == tenth
        scores = index.search(weights, 10, allowed)[1]
        recalls.append((scores >= np.array(tenth)[:, None]).mean())
    assert recalls[0] == found.recall
    assert min(recalls[1:]) == found.worst_recall
    assert found.recall >= 0.9
    assert found.worst_recall >= 0.95
    assert 1 <= found.probes <= found.filtered_probes <= 32
    assert (lists.probes, lists.filtered_probes) == (found.probes, found.filtered_probes)


def test_an_index_opens_its_lists_after_a_build_took_them_away(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 40))
    checkpoint = tiny_checkpoint(tmp_path / "run")
    asked = []

    def requests(layout: DescriptorLayout, schema, descriptors, seed):  # type: ignore[no-untyped-def]
        asked.append((layout, descriptors.shape))
        return descriptors.astype(np.float32) - 100

    report = build(dataset, checkpoint, tmp_path / "out", requests=requests, index_factory="IVF4")
    assert asked == [(checkpoint.model.layout, (40, 32))]
    assert report.search.recall >= 0.98
    store = open_store(tmp_path / "out")
    build(dataset, checkpoint, tmp_path / "out", index_factory="flat")
    assert not list((tmp_path / "out").glob("*.faiss"))
    index = open_search(store)
    assert index.choice.startswith("IVF4, ")
    descriptors = store.descriptors()
    weights = descriptors[:3].astype(np.float32) - 90
    rows, _ = index.search(weights, 40, exact=True)
    for query in range(3):
        assert rows[query].tolist() == reference(descriptors, weights[query], None)[0].tolist()
    assert open_search(open_store(tmp_path / "out")).choice == "flat bytes"


def test_rows_keep_their_lists_in_an_edit(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 30))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    store = open_store(tmp_path / "out")
    entry = build_search(store, 0.98, "IVF3", None, Silent())
    origin = np.array([29, *range(28), -1])
    carried = carry_lists(store, entry, origin)
    old, new = (
        open_store_lists(tmp_path / "out", replace(store.manifest, search=own)).list_of_rows()
        for own in (entry, carried)
    )
    assert np.array_equal(new[:29], old[origin[:29]])
    assert (carried.recall, carried.probes) == (entry.recall, entry.probes)


def open_store_lists(folder: Path, manifest):  # type: ignore[no-untyped-def]
    from indexer.search.lists import open_lists
    from indexer.store.files import open_file

    with open_file(folder, manifest.search.file) as handle:
        return open_lists(folder, manifest.search, handle)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_finds_the_same(tmp_path: Path) -> None:
    dataset = gallery(tmp_path, write_images(tmp_path, 40))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    store = open_store(tmp_path / "out")
    weights = store.descriptors().astype(np.float32) - 100
    ours, theirs = open_search(store, "cuda"), open_search(store)
    assert ours.choice == "flat bytes on cuda by torch"
    for mine, right in zip(ours.search(weights, 20), theirs.search(weights, 20), strict=True):
        np.testing.assert_array_equal(mine, right)


def test_without_a_working_gpu_the_cpu_searches_and_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    dataset = gallery(tmp_path, write_images(tmp_path, 4))
    build(dataset, tiny_checkpoint(tmp_path / "run"), tmp_path / "out")
    index = open_search(open_store(tmp_path / "out"), "cuda")
    assert index.choice.startswith("flat bytes (on the CPU: torch fails on cuda")
    assert index.search(np.ones((1, 32), np.float32), 2)[0].min() >= 0
