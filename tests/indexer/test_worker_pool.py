"""Work that is done on one core a thread while the caller keeps all of its own."""

import torch

from indexer.worker_pool import worker_pool


def test_each_thread_has_one_core() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(worker_pool().map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
        assert worker_pool() is worker_pool()
    finally:
        torch.set_num_threads(threads)
