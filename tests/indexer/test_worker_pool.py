"""Work that is done on one core while the caller keeps all of its own."""

import pytest
import torch

from indexer.worker_pool import on_one_core


def test_a_call_on_one_core() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert on_one_core(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            on_one_core(lambda: 1 // 0)
    finally:
        torch.set_num_threads(threads)
