"""What only a CUDA GPU can show: the kernels compiled, vectors and encoding there."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from clustered import brute, clustered
from mapped_store import mapped_store
from test_head import CONDITIONS, SIZES, _embed, _model

from indexer import device_maps, views
from indexer.encode import encode, torch_forward
from indexer.gpu_index import FaissGpuSource, TorchSource, faiss_gpus
from indexer.index_choice import choose_index
from indexer.quantise import dequantise
from indexer.view import View
from training.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    ("name", "dim", "grid"),
    [
        ("m2fashion", 40, 3),
        ("m2fashion", 256, 7),
        ("m2fashion", 512, 7),
        ("paper", 130, 7),
        ("without-asa", 64, 4),
        ("gmp", 128, 7),
    ],
)
def test_the_kernels_equal_the_reference(
    name: str, dim: int, grid: int, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("indexer.head_triton")
    monkeypatch.setattr(device_maps, "_fits", lambda store, device: resident)
    model = _model(name, dim, grid)
    store = mapped_store(model, SIZES)
    expected = _embed(store, model, CONDITIONS, head="torch")
    model.to("cuda")
    rows = np.random.default_rng(1).permutation(len(store))
    for chunk in (None, 50):
        found = _embed(store, model, CONDITIONS, rows, device="cuda", head="triton", chunk=chunk)
        for one, other in zip(found, expected, strict=True):
            some = other[rows].any(1)
            assert (one * other[rows]).sum(1)[some].min() > 0.9999
    whole = views.embed(store, model, CONDITIONS[1], device="cuda", head="triton")
    assert (whole * expected[1]).sum(1)[expected[1].any(1)].min() > 0.9999


@pytest.mark.parametrize("by_faiss", [False, True])
def test_a_view_is_searched_exactly(by_faiss: bool) -> None:
    vectors, queries = clustered(5000, 64), clustered(20, 64, seed=1)
    if by_faiss:
        count, why = faiss_gpus(faiss)
        if not count:
            pytest.skip(why)
        choice = choose_index(len(vectors), 64, 0.98, gpu_memory=10**9)
        source: FaissGpuSource | TorchSource = FaissGpuSource(vectors, choice, faiss, count)
    else:
        source = TorchSource(vectors, "cuda")
    view = View("key", "name", vectors)
    view.use(lambda: source)
    scores, rows = view.search(queries, 10, exact=True)
    assert view.source is source
    for query, own, found in zip(queries, scores, rows, strict=True):
        cosines, right = brute(vectors, query, 10)
        assert np.array_equal(found, right)
        np.testing.assert_allclose(own, cosines, atol=1e-6)


def test_images_are_encoded_as_on_a_cpu() -> None:
    model = _model("m2fashion", 64, 7)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 64, 64), dtype=np.uint8)
    preprocessing = Preprocessing(size=64)
    right = encode(torch_forward(model), pixels, preprocessing, "cpu")
    found = encode(torch_forward(model.to("cuda")), pixels, preprocessing, "cuda")
    for one, other in ((found.maps, right.maps), (found.keys, right.keys)):
        left, wanted = dequantise(one, (7, 7)), dequantise(other, (7, 7))
        cosine = torch.nn.functional.cosine_similarity(left.flatten(1), wanted.flatten(1))
        assert cosine.min() > 0.999
    np.testing.assert_allclose(found.predicted, right.predicted, atol=0.01)
