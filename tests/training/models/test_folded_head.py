"""The folded head against `attend`, for every variant of M2Fashion and kind of condition."""

import pytest
import torch
from head_variants import CONDITIONS, OURS, SCHEMA, variant_model
from torch import Tensor

from training.models.config import VARIANTS, ModelConfig, variant
from training.models.embedder import FoldableEmbedder
from training.models.folded_head import FoldedHead, Scratch
from training.models.registry import build_model


def _attended(folded: FoldedHead, maps: Tensor, keys: Tensor) -> Tensor:
    """V_s [M, d], cell by cell."""
    rows = []
    for one, key in zip(maps.flatten(2), keys.flatten(2), strict=True):
        cells = one.shape[1]
        logits = torch.zeros(cells, dtype=one.dtype)
        if folded.attention.query is not None:
            logits = torch.stack([key[:, cell] @ folded.attention.query for cell in range(cells)])
        alpha = (torch.tanh(logits) if folded.attention.squash else logits).softmax(0)
        if folded.attention.pooling == "mean":
            rows.append(sum(alpha[cell] * one[:, cell] for cell in range(cells)))
        else:
            weighted = [cells * alpha[cell] * one[:, cell] for cell in range(cells)]
            rows.append(torch.stack(weighted).amax(0))
    return torch.stack(rows)


# d = 5 < K: the axes of different attributes are not orthogonal; odd: a feature is padded.
@pytest.mark.parametrize(
    ("dim", "dtype", "bound"), [(16, torch.float32, 1e-5), (5, torch.float64, 1e-12)]
)
@pytest.mark.parametrize("name", OURS)
def test_folded_head_equals_attend(name: str, dim: int, dtype: torch.dtype, bound: float) -> None:
    model = variant_model(name, dim, dtype)
    maps = 2 * torch.randn(9, dim, 3, 3, dtype=dtype)
    maps[4] = 0
    maps[5, :, 1, 1] = 0
    keys = model.keys(maps)
    scratch = Scratch(11, maps.new_empty(1, dim))
    for states in CONDITIONS.values():
        condition = torch.from_numpy(states).to(dtype)
        expected = model.attend(maps, condition[None], keys)
        folded = model.fold(condition)
        attended = _attended(folded, maps, keys)
        before = attended.clone()
        out = torch.full_like(attended, torch.nan)
        assert folded.tail(attended, out, scratch) is out
        torch.testing.assert_close(out, expected, atol=bound, rtol=0)
        assert torch.equal(attended, before)
        torch.testing.assert_close(
            folded.tail(attended, torch.empty_like(out)), expected, atol=bound, rtol=0
        )


def test_what_a_condition_leaves() -> None:
    condition = torch.from_numpy(CONDITIONS["values"]).float()
    assert variant_model("without-asa", 8, torch.float32).fold(condition).attention.query is None
    assert variant_model("without-aca", 8, torch.float32).fold(condition).channel is None
    assert variant_model("without-readout", 8, torch.float32).fold(condition).readout is None
    nothing = torch.from_numpy(CONDITIONS["nothing"]).float()
    assert variant_model("m2fashion", 8, torch.float32).fold(nothing).readout is None
    assert variant_model("paper", 8, torch.float32).fold(condition).attention.squash
    readout = variant_model("m2fashion", 8, torch.float32).fold(condition).readout
    assert readout is not None
    assert readout.axes.shape == (SCHEMA.size, 8)


def test_only_m2fashion_folds() -> None:
    for name in VARIANTS:
        config = variant(name, ModelConfig(backbone="small", stage="layer2", grid=3, dim=8))
        model = build_model(SCHEMA, config)
        assert isinstance(model, FoldableEmbedder) == (name in OURS), name
