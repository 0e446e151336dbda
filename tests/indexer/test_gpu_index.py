"""Views on GPUs, as far as a machine without one goes: the choice, torch on CPU tensors, and
faiss-gpu by a stand-in that has its functions and does their work with CPU faiss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from clustered import brute, clustered
from numpy.typing import NDArray

from indexer.gpu_index import HALF_ERROR, FaissGpuSource, TorchSource, faiss_gpus, open_gpu
from indexer.index_choice import choose_index
from indexer.view import View

ROWS, DIM = 3000, 32
PLENTY = 10**9


class FakeGpuFaiss:
    """What `gpu_index` uses of faiss-gpu. fp16 is imitated by rounding what is added."""

    IndexFlatIP, METRIC_INNER_PRODUCT = faiss.IndexFlatIP, faiss.METRIC_INNER_PRODUCT
    extract_index_ivf = staticmethod(faiss.extract_index_ivf)

    def __init__(self, gpus: int = 1, wrong: bool = False, full: bool = False) -> None:
        self.gpus, self.wrong, self.full = gpus, wrong, full
        self.clones: list[tuple[str, Any]] = []

    def get_num_gpus(self) -> int:
        return self.gpus

    def StandardGpuResources(self) -> object:
        return object()

    def GpuClonerOptions(self) -> SimpleNamespace:
        return SimpleNamespace(useFloat16=False)

    def GpuMultipleClonerOptions(self) -> SimpleNamespace:
        return SimpleNamespace(useFloat16=False, shard=False)

    def index_cpu_to_gpu(self, resources: object, device: int, index: Any, options=None) -> Any:
        self.clones.append((f"gpu {device}", options))
        return self._clone(index, options is not None and options.useFloat16)

    def index_cpu_to_all_gpus(self, index: Any, co: Any, ngpu: int) -> Any:
        self.clones.append((f"{ngpu} gpus", co))
        return self._clone(index, co.useFloat16)

    def _clone(self, index: Any, half: bool) -> Any:
        if self.full and half:
            raise RuntimeError("Error in allocMemory: out of memory\nmore")
        return _OnGpu(index, half, self.wrong)


class _OnGpu:
    def __init__(self, index: Any, half: bool, wrong: bool) -> None:
        self.index, self.half, self.wrong = index, half, wrong
        self.added = 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        assert not self.added, "shards take one add"
        self.added += 1
        self.index.add(_half(vectors) if self.half else vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> Any:
        assert k <= 2048
        scores, rows = self.index.search(_half(queries) if self.half else queries, k)
        return scores, 1 - rows if self.wrong else rows


def _half(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors.astype(np.float16).astype(np.float32)


def assert_is_brute(view: View, k: int) -> None:
    queries = clustered(20, DIM, seed=5)
    scores, rows = view.search(queries, k)
    for query, own, found in zip(queries, scores, rows, strict=True):
        expected, which = brute(view.vectors, query, k)
        np.testing.assert_array_equal(found, which)
        np.testing.assert_array_equal(own, expected)


def tight(rows: int = ROWS) -> NDArray[np.float32]:
    """Vectors whose cosines fp16 cannot tell apart: all within a hundredth of one direction."""
    vectors = clustered(1, DIM) + clustered(rows, DIM, seed=1) * 0.01
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 10, ROWS])
@pytest.mark.parametrize("make", [clustered, lambda n, d: tight(n)])
def test_torch_is_exact_after_rescoring(k: int, make: Any) -> None:
    vectors = make(ROWS, DIM)
    opened = open_gpu(vectors, "cpu", faiss, memory=lambda count: PLENTY)
    assert isinstance(opened.source, TorchSource)
    assert "by torch: the installed faiss has no GPU support" in opened.remark
    view = View("k", "n", vectors)
    view.use(lambda: opened.source)
    assert_is_brute(view, k)
    assert view.nbytes == vectors.nbytes * 3 // 2
    view.close()


def test_the_bound_on_fp16_holds() -> None:
    for vectors in (clustered(ROWS, 512), tight()):
        source = TorchSource(vectors, "cpu")
        scores, rows = source.candidates(vectors[:50], ROWS)
        exact = np.einsum("qd,qnd->qn", vectors[:50], vectors[rows])
        assert np.abs(scores - exact).max() < HALF_ERROR


@pytest.mark.parametrize(("gpus", "where"), [(1, "gpu 0"), (3, "3 gpus")])
@pytest.mark.parametrize("make", [clustered, lambda n, d: tight(n)])
def test_faiss_gpu_flat(gpus: int, where: str, make: Any) -> None:
    fake = FakeGpuFaiss(gpus)
    vectors = make(ROWS, DIM)
    opened = open_gpu(vectors, "cuda", fake, memory=lambda count: PLENTY * count)
    assert isinstance(opened.source, FaissGpuSource)
    assert opened.remark.startswith("flat fp16 on")
    assert len(fake.clones) == gpus + 1  # one self-test each
    name, options = fake.clones[-1]
    assert (name, options.useFloat16) == (where, True)
    assert gpus == 1 or options.shard
    for k in (10, 2500):  # more than faiss-gpu selects
        assert_is_brute(View("k", "n", vectors, lambda: opened.source), k)


@pytest.mark.parametrize("gpus", [1, 2])
def test_faiss_gpu_lists_where_fp16_does_not_fit(gpus: int) -> None:
    fake = FakeGpuFaiss(gpus)
    vectors = clustered(ROWS, DIM)
    opened = open_gpu(vectors, "cuda", fake, memory=lambda count: ROWS * DIM * 3 // 2)
    assert opened.remark.startswith("IVF64,SQ8 on")
    assert fake.clones[-1][1].useFloat16 is False
    view = View("k", "n", vectors, lambda: opened.source)
    queries = clustered(100, DIM, seed=5)
    rows = view.search(queries, 10)[1]
    hits = [len(set(f) & set(brute(vectors, q, 10)[1])) for q, f in zip(queries, rows, strict=True)]
    assert np.mean(hits) > 8


def test_what_fails_falls_back_and_says_so() -> None:
    vectors = clustered(ROWS, DIM)

    def opened(fake: Any, memory: int = PLENTY, device: str = "cpu") -> tuple[str | None, str]:
        found = open_gpu(vectors, device, fake, memory=lambda count: memory)
        return found.source and type(found.source).__name__, found.remark

    assert opened(FakeGpuFaiss(0)) == (
        "TorchSource",
        "flat fp16 on cpu by torch: faiss sees no GPU",
    )
    kind, remark = opened(FakeGpuFaiss(2, wrong=True))
    assert kind == "TorchSource"
    assert "wrong answers on GPU 0" in remark
    kind, remark = opened(FakeGpuFaiss(1, full=True))
    assert kind == "TorchSource"
    assert "out of memory)" in remark
    kind, remark = opened(FakeGpuFaiss(1), memory=10)
    assert kind is None
    assert remark.startswith("searching on the CPU: 3,000 vectors do not fit the memory of 1 GPUs")
    kind, remark = opened(FakeGpuFaiss(0), device="meta:nonsense")
    assert kind is None
    assert "torch fails on meta:nonsense" in remark


def test_the_memory_of_the_gpu_that_is_used_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def free(number: int) -> tuple[int, int]:
        asked.append(number)
        return 0, 0

    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    assert open_gpu(clustered(ROWS, DIM), "cuda:1", FakeGpuFaiss(0)).source is None
    assert asked == [1]


def test_the_installed_faiss_is_asked_politely() -> None:
    count, why = faiss_gpus(faiss)
    assert count > 0 or why
    assert choose_index(10, 4, gpu_memory=PLENTY).gpu
