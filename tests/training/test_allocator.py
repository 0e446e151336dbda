import platform

import torch

from training.device import keep_freed_memory


def test_glibc_takes_the_settings_and_torch_goes_on() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    total = sum(float(torch.ones(1 << 20).sum()) for _ in range(8))
    assert total == 8 * (1 << 20)
