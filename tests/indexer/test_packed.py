"""Tensors packed for a GPU, against the same filled up one by one."""

import pytest
import torch
from torch.nn import functional as F

from indexer.packed import Part, packed


def test_parts_of_any_layout_and_kind() -> None:
    torch.manual_seed(1)
    matrix, row = torch.randn(5, 7), torch.randn(3)
    large = matrix.clone()
    large[2, 3] = -1e6  # beyond fp16
    ends = torch.tensor([0, 4, 9])
    halves, turned, longer, whole = packed(
        [
            Part(large, (8, 8), halves=True),
            Part(matrix.T, (7, 8)),
            Part(row, (16,)),
            Part(ends, (4,), torch.int32),
        ],
        torch.device("cpu"),
    )
    expected = F.pad(large.clamp(-65_504, 65_504), (0, 1, 0, 3))
    assert halves.dtype == torch.float16
    assert torch.equal(halves[0], expected.half())
    assert (halves.float().sum(0) - expected).abs().max() <= 2**-22  # numbers below 4
    assert halves[1].any()
    assert torch.equal(turned, F.pad(matrix.T, (0, 3)))
    assert torch.equal(longer, F.pad(row, (0, 13)))
    assert torch.equal(whole, torch.tensor([0, 4, 9, 0], dtype=torch.int32))
    assert all(part.is_contiguous() for part in (halves, turned, longer, whole))
    assert all(part.data_ptr() % 16 == halves.data_ptr() % 16 for part in (turned, longer, whole))


def test_what_would_not_be_aligned_is_refused() -> None:
    with pytest.raises(AssertionError, match="aligned"):
        packed([Part(torch.zeros(3), (3,))], torch.device("cpu"))
