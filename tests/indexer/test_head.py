"""The kernels over stored maps against the float32 torch reference."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mapped_store import mapped_store
from tiny_gallery import TinyEmbedder

from indexer import device_maps, views
from indexer.head import _broken, choose_head, embed_rows
from indexer.prefetch import runs
from indexer.row_addresses import row_addresses
from training.errors import ResourceError, UsageError
from training.models.config import VARIANTS, ModelConfig, variant
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
CONDITIONS = [
    SCHEMA.condition(types=["pattern"]),
    SCHEMA.condition(present=["floral", "v-neckline"], absent=["blue"]),
    SCHEMA.condition(),
]
OURS = [n for n, options in VARIANTS.items() if "architecture" not in options]
SIZES = (37, 5, 64, 1, 24)
HEADS = ("numba",)
if os.environ.get("TRITON_INTERPRET") == "1":  # in a process of its own, which a test starts
    HEADS = ("triton",)
    OURS = ["m2fashion", "paper", "without-asa", "gmp"]  # those that differ to the kernel
    SIZES = (9, 2, 5, 1, 4)  # the interpreter is slow


def _model(name: str = "m2fashion", dim: int = 40, grid: int = 3) -> M2Fashion:
    torch.manual_seed(5)
    config = variant(name, ModelConfig(backbone="resnet18", stage="layer1", grid=grid, dim=dim))
    model = M2Fashion(SCHEMA, config).eval().requires_grad_(False)
    if model.config.spatial != "none":
        model.spatial.query.mul_(4)  # so that some cells count more than others
    return model


def _embed(store, model, conditions, rows=None, **options):
    parts = list(embed_rows(store, model, conditions, rows, **options))
    places = [where for where, _ in parts]
    assert [p.start for p in places[1:]] == [p.stop for p in places[:-1]]
    return [np.concatenate([vectors[c] for _, vectors in parts]) for c in range(len(conditions))]


def _top(vectors):
    """The 10 nearest of every seventh vector."""
    return np.argsort(-(vectors[::7] @ vectors.T), axis=1, kind="stable")[:, :10]


def _same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        assert one.shape == other.shape
        some = other.any(1)  # w/o ACA and readout an image of zeros has no direction
        assert some.sum() >= len(other) - len(SIZES)
        assert (one * other).sum(1)[some].min() > 0.9999
        np.testing.assert_allclose(np.linalg.norm(one[some], axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", OURS)
def test_kernel_equals_the_reference(name: str, head: str) -> None:
    model = _model(name)
    store = mapped_store(model, SIZES)
    expected = _embed(store, model, CONDITIONS, head="torch")
    found = _embed(store, model, CONDITIONS, head=head, chunk=8)  # across shards, a ragged last
    _same(found, expected)
    loud = np.flatnonzero(store.quantised(slice(None))[0].scales.any(1))  # the rest are all alike
    assert len(loud) == len(store) - len(SIZES)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(_top(one[loud]), _top(other[loud]))
    for number, condition in enumerate(CONDITIONS):  # one condition at a time
        _same(_embed(store, model, [condition], head=head), [expected[number]])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("dim", "grid"), [(7, 2), (130, 7)])
def test_odd_shapes(dim: int, grid: int, head: str) -> None:
    for name in ("m2fashion", "gmp"):
        model = _model(name, dim, grid)
        store = mapped_store(model, (4, 3))
        expected = _embed(store, model, CONDITIONS, head="torch")
        _same(_embed(store, model, CONDITIONS, head=head), expected)


@pytest.mark.parametrize("head", HEADS)
def test_chosen_rows_in_any_order(head: str) -> None:
    model = _model()
    store = mapped_store(model, SIZES)
    everything = _embed(store, model, CONDITIONS, head="torch")
    rows = np.random.default_rng(2).integers(0, len(store), len(store) // 2)  # some of them twice
    for chosen in (rows, slice(3, -1, 2), rows[:1]):
        found = _embed(store, model, CONDITIONS, chosen, head=head, chunk=16)
        _same(found, [vectors[chosen] for vectors in everything])
    assert list(embed_rows(store, model, CONDITIONS, rows[:0], head=head)) == []
    with pytest.raises(IndexError):
        list(embed_rows(store, model, CONDITIONS, np.array([len(store)]), head=head))


@pytest.mark.parametrize("head", HEADS)
def test_more_conditions_than_a_kernel_takes_at_once(head: str) -> None:
    model = _model()
    store = mapped_store(model, (3, 2))
    states = np.random.default_rng(3).integers(-1, 2, (21, SCHEMA.size)).astype(np.int8)
    expected = _embed(store, model, list(states), head="torch")
    _same(_embed(store, model, list(states), head=head), expected)


@pytest.mark.skipif(HEADS != ("triton",), reason="in the interpreter")
@pytest.mark.parametrize("streamed", [False, True])
def test_attention_of_triton_runs_ahead(streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_maps, "_fits", lambda store, device: not streamed)
    model = _model()
    store = mapped_store(model, SIZES)
    expected = _embed(store, model, CONDITIONS, head="torch")
    for chunks in (0, 1, 100):
        monkeypatch.setattr("indexer.head_triton._AHEAD", chunks * 4 * 40 * 4 * len(CONDITIONS))
        _same(_embed(store, model, CONDITIONS, head="triton", chunk=4), expected)


@pytest.mark.parametrize("head", HEADS)
def test_one_view(head: str) -> None:
    model = _model()
    store = mapped_store(model, SIZES)
    expected = views.embed(store, model, CONDITIONS[1], head="torch")
    assert expected.shape == (sum(SIZES), model.dim)
    np.testing.assert_allclose(
        views.embed(store, model, CONDITIONS[1], head=head), expected, atol=2e-5
    )
    some = views.embed(store, model, CONDITIONS[1], slice(-2, 3, -3), head=head)
    np.testing.assert_allclose(some, expected[-2:3:-3], atol=2e-5)


def test_an_unfinished_pass_leaves_nothing_behind() -> None:
    model = _model()
    store = mapped_store(model, SIZES)
    threads = torch.get_num_threads()
    parts = embed_rows(store, model, CONDITIONS, head="numba", chunk=4)
    next(parts)
    parts.close()
    assert torch.get_num_threads() == threads
    _same(
        _embed(store, model, CONDITIONS, head="numba"),
        _embed(store, model, CONDITIONS, head="torch"),
    )


def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    assert choose_head(model).name == "numba"
    assert choose_head(model).remark is None
    assert choose_head(model, images=10).name == "numba"  # it is loaded already
    monkeypatch.delitem(sys.modules, "indexer.head_numba")
    assert choose_head(model, images=10).name == "torch"
    assert choose_head(model, images=10_000).name == "numba"
    assert choose_head(model, wanted="torch").name == "torch"
    foreign = choose_head(TinyEmbedder())
    assert foreign.name == "torch"
    assert "folded" in str(foreign.remark)
    monkeypatch.setattr("indexer.head.find_spec", lambda name: None)
    missing = choose_head(model)
    assert missing.name == "torch"
    assert "[fast]" in str(missing.remark)
    with pytest.raises(ResourceError, match="not installed"):
        choose_head(model, wanted="numba")
    with pytest.raises(ResourceError, match="needs a GPU"):
        choose_head(model, wanted="triton")
    with pytest.raises(UsageError, match="unknown head 'cuda'"):
        choose_head(model, wanted="cuda")


def test_a_numba_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    monkeypatch.setitem(sys.modules, "indexer.head_numba", None)  # as beside a numpy too new for it
    monkeypatch.setattr("indexer.head._broken", cache(_broken.__wrapped__))
    choice = choose_head(model, images=10_000)
    assert choice.name == "torch"
    assert "numba is installed and cannot be imported" in str(choice.remark)
    with pytest.raises(ResourceError, match="cannot be imported"):
        choose_head(model, wanted="numba")
    store = mapped_store(model, SIZES)
    _same(_embed(store, model, CONDITIONS), _embed(store, model, CONDITIONS, head="torch"))


def test_triton_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    choice = choose_head(_model(), "cuda")
    assert choice.name == "torch"
    assert "C compiler" in str(choice.remark)
    monkeypatch.setenv("CC", "tcc")
    assert choose_head(_model(), "cuda").name == "triton"


def test_numba_is_not_imported_for_a_few_rows_but_for_many_a_few() -> None:
    code = (
        "import sys, numpy as np; from indexer import head\n"
        "from test_head import _model, CONDITIONS, mapped_store, views\n"
        "model = _model(); store = mapped_store(model, (60, 3)); head._FEW = 120\n"
        "views.embed(store, model, CONDITIONS[0], np.arange(50), head='torch')\n"
        "for imported in (False, False, True):\n"
        "    views.embed(store, model, CONDITIONS[0], np.arange(50))\n"
        "    assert any(n.startswith('numba') for n in sys.modules) == imported\n"
    )
    _run(code)


def test_the_gpu_kernel_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    if HEADS == ("triton",):
        return
    code = (
        "import sys, pytest\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'triton', {__file__!r}]))"
    )
    _run(code, TRITON_INTERPRET="1")


def test_what_streams_to_a_gpu() -> None:
    store = mapped_store(_model(), SIZES)
    rows = np.random.default_rng(4).permutation(len(store))
    maps, keys = store.quantised(rows)
    parts = [
        [part.maps.clone(), part.map_scales.clone(), part.keys.clone(), part.key_scales.clone()]
        for part in device_maps.stream(store, rows, "cpu", 20)
    ]
    assert {len(part[0]) for part in parts[:-1]} == {20}
    for number, array in enumerate((maps.values, maps.scales, keys.values, keys.scales)):
        assert np.array_equal(torch.cat([part[number] for part in parts]).numpy(), array)


def test_runs_of_rows() -> None:
    addresses = np.array([100, 110, 120, 200, 300, 310, 50], dtype=np.uint64)
    assert list(runs(addresses, 10)) == [(100, 30), (200, 10), (300, 20), (50, 10)]
    assert list(runs(addresses[:1], 10)) == [(100, 10)]


def test_addresses_are_those_of_the_rows() -> None:
    store = mapped_store(_model(), SIZES)
    rows = np.array([0, 36, 37, 130, 41, 3])
    maps, keys = store.quantised(rows)
    places = row_addresses(store, rows)
    for array, addresses in (
        (maps.values, places.maps),
        (maps.scales, places.map_scales),
        (keys.values, places.keys),
        (keys.scales, places.key_scales),
    ):
        for row, address in zip(array, addresses, strict=True):
            assert ctypes.string_at(int(address), row.nbytes) == row.tobytes()


def _run(code: str, **environment: str) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
