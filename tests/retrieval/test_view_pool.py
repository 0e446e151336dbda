"""Which views are computed, kept and written, counted; and what is given back."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_index import Shop

from indexer.view import View
from retrieval import view_pool
from retrieval.engine import Engine
from retrieval.request import Request

VALUES = ("disc", "square", "gold", "colour:red", "colour:blue", "colour:green")
BYTES = 68 * 32 * 4  # a view


@pytest.fixture
def folder(shop: Shop, tmp_path: Path) -> Path:
    shutil.copytree(shop.index, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many conditions each pass over the store was for."""
    passes: list[int] = []
    real = view_pool.embed_arrays

    def counted(store, model, conditions, **options):
        passes.append(len(conditions))
        return real(store, model, conditions, **options)

    monkeypatch.setattr(view_pool, "embed_arrays", counted)
    return passes


def test_a_warm_view_is_not_computed_again(folder: Path, computed: list[int]) -> None:
    engine = Engine.open(folder, device="cpu", memory=0)
    for value in ("disc", "square") * 3:
        engine.prepare(present=[value])
    assert computed == [1, 1]
    condition = engine.schema.condition(["gold"])
    assert engine.pool.existing(condition) is None
    Engine.open(folder, device="cpu").prepare(present=["gold"])  # another process
    assert engine.pool.existing(condition) is not None


def test_a_warm_view_that_left_the_disk_is_not_held(folder: Path) -> None:
    engine = Engine.open(folder, device="cpu", memory=0)
    engine.pool.warm.budget_bytes = 2 * (BYTES + 100)
    for value in VALUES * 2:
        engine.prepare(present=[value])
        engine.prepare(present=["colour:red", "disc"])  # drops the other from memory
        assert engine.pool.existing(engine.schema.condition([value])) is not None
    assert len(engine.pool.warm.list()) == 2
    assert len(engine.pool._warm) <= 2


def test_what_a_query_computed_is_kept_on_disk_when_that_is_asked_for(
    folder: Path, shop: Shop, computed: list[int]
) -> None:
    engine = Engine.open(folder, device="cpu")
    engine.query(shop.catalogue / "images/000.png", present=["disc"])
    assert not engine.pool.warm.list()
    before = len(computed)
    engine.prepare(present=["disc"])
    (entry,) = engine.pool.warm.list()
    assert entry.seconds >= 0
    assert len(computed) == before


@pytest.mark.parametrize("views", [1, 2, 4])
def test_many_requests_compute_each_view_once_and_within_the_memory(
    folder: Path, shop: Shop, computed: list[int], views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.open(folder, device="cpu", memory=views * BYTES)
    real, most = view_pool.embed_arrays, [0]

    def watched(store, model, conditions, **options):
        most[0] = max(most[0], engine.pool.nbytes + len(conditions) * BYTES)
        return real(store, model, conditions, **options)

    monkeypatch.setattr(view_pool, "embed_arrays", watched)
    image = shop.catalogue / "images/000.png"
    requests = [Request(image, present=[value]) for value in VALUES * 2]
    found = engine.query_many(requests)
    assert sum(computed) == len(VALUES)
    assert most[0] <= engine.pool.memory
    alone = Engine.open(folder, device="cpu")
    for request, result in zip(requests, found, strict=True):
        right = alone.query(image, present=request.present)
        assert [hit.row for hit in result] == [hit.row for hit in right]


def test_threads_that_ask_for_one_view_compute_it_once(folder: Path, computed: list[int]) -> None:
    engine = Engine.open(folder, device="cpu")
    condition = engine.schema.condition(["disc"])
    start, found = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        found.append(engine.pool.get(condition))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1]
    assert len({id(view) for view in found}) == 1


def test_threads_share_an_engine(folder: Path, shop: Shop) -> None:
    """Views come, are written and go meanwhile: there is memory for two of seven."""
    image = shop.catalogue / "images/000.png"
    alone = Engine.open(folder, device="cpu")
    right = {v: [hit.row for hit in alone.query(image, present=[v])] for v in VALUES}
    engine = Engine.open(folder, device="cpu", memory=2 * BYTES)
    engine.two_stage_from = 1
    engine.calibration()
    found: list[tuple[str, list[int]]] = []

    def ask(number: int) -> None:
        for place in range(3 * len(VALUES)):
            value = VALUES[(place * (number + 1) + number) % len(VALUES)]
            result = engine.query(image, present=[value], search="exact" if place % 2 else "auto")
            found.append((value, [hit.row for hit in result]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert len(found) == 4 * 3 * len(VALUES)
    for value, rows in found:
        assert rows == right[value]
    assert engine.pool.nbytes <= engine.pool.memory


def test_a_view_that_was_moved_to_a_gpu_is_freed_at_once(folder: Path) -> None:
    engine = Engine.open(folder, device="cpu")
    engine.pool.device = "cuda"
    view = engine.pool._placed(View("key", "name", np.eye(3, dtype=np.float32)))
    gone = weakref.ref(view)
    gc.disable()
    try:
        del view
        assert gone() is None
    finally:
        gc.enable()
