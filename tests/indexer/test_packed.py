"""Tensors packed for a GPU, against the same filled up one by one."""

import pytest
import torch
from torch.nn import functional as F

from indexer.packed import Part, packed


def test_parts_of_any_layout_and_kind() -> None:
    torch.manual_seed(1)
    matrix, row = torch.randn(5, 7), torch.randn(3)
    matrix[2, 3] = -1e6  # beyond fp16
    ends = torch.tensor([0, 4, 9])
    half, turned, longer, whole = packed(
        [
            Part(matrix, (8, 8), torch.float16),
            Part(matrix.T, (7, 8)),
            Part(row, (16,)),
            Part(ends, (4,), torch.int32),
        ],
        torch.device("cpu"),
    )
    expected = F.pad(matrix, (0, 1, 0, 3)).half()
    expected[2, 3] = -65_504
    assert torch.equal(half, expected)
    assert torch.equal(turned, F.pad(matrix.T, (0, 3)))
    assert torch.equal(longer, F.pad(row, (0, 13)))
    assert torch.equal(whole, torch.tensor([0, 4, 9, 0], dtype=torch.int32))
    assert all(part.is_contiguous() for part in (half, turned, longer, whole))
    assert all(part.data_ptr() % 16 == half.data_ptr() % 16 for part in (turned, longer, whole))


def test_what_would_not_be_aligned_is_refused() -> None:
    with pytest.raises(AssertionError, match="aligned"):
        packed([Part(torch.zeros(3), (3,))], torch.device("cpu"))
