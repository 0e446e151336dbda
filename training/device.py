"""What is computed on: the device, its number formats, and several processes (`torchrun`).

Every process draws what one process would draw for the whole batch and works on its share of the
images; embeddings are gathered, so that pairs are formed across the shares and the loss is that
of the whole batch. Only batch norms that are being trained differ: each sees its process' share.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import conv2d

from training.errors import ResourceError, UsageError


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together."""

    rank: int = 0  # this one's number, 0..count-1; 0 writes and reports
    count: int = 1  # how many there are

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process' part of `total` items; all parts are equally long, some items left over."""
        size = total // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def gather(self, part: Tensor) -> Tensor:
        """The parts of all processes end to end along the first axis, with their gradients."""
        if self.count == 1:
            return part
        if part.requires_grad:
            return torch.cat(list(all_gather(part)))  # type: ignore[no-untyped-call]
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()

_PATIENCE = timedelta(days=1)
"""How long a process waits for another: for the first one's pass over a large gallery with a frozen
backbone, or its validation. That a process has died is seen at once."""

_KEPT: list[dist.ProcessGroup] = []
"""Groups that were joined, until the process ends.

Were a model's `Reducer` the last to hold one, it would wait with the GIL held for gloo's thread,
which, after an error, may wait for the GIL to let go of a tensor: the survivor of a dead process
would never end. A Python reference is dropped without the GIL.
"""


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the processes that `torchrun` started; alone without it. Also gives this one's device:
    `cuda` becomes `cuda:N` by its local rank.

    Raises:
        UsageError: the environment that torchrun sets is broken.
        ResourceError: another process died, or does not answer any more.
    """
    if "LOCAL_RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"cannot join the other processes ({error}); "
            "start them with `retrieve train --processes N ...`"
        ) from error
    assert dist.group.WORLD is not None
    _KEPT.append(dist.group.WORLD)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    except RuntimeError as error:
        # gloo raises a plain RuntimeError, also out of the backward pass; nccl a DistError.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ResourceError(
            "another process of this training has ended, or has not answered for a day "
            f"({str(error).splitlines()[0]}); start them again, with --resume if an epoch was "
            "finished: it is kept"
        ) from error
    finally:
        dist.destroy_process_group()


def autocast(setting: str, device: str) -> AbstractContextManager[object]:
    """A context in which matrix products run in `float32`, `bfloat16` or, with `auto`, the faster.

    bfloat16 has float32's range, so the loss needs no scaling. On a CPU it pays only with matrix
    instructions for it (AMX: ten times float32 in a large product); without them it is emulated.
    """
    kind = device.partition(":")[0]
    wanted = setting == "bfloat16" or (setting == "auto" and has_fast_bfloat16(kind))
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=wanted)


def has_fast_bfloat16(kind: str) -> bool:
    """Whether `cpu` or `cuda` has instructions for products of bfloat16 matrices."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to return memory for the rest of this process, for long batch jobs; whether
    that took effect: elsewhere than on Linux with glibc nothing is changed."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


@dataclass(frozen=True)
class DeviceChoice:
    """A device and, where it is not what one might expect, why."""

    device: str
    remark: str | None = None


def choose_device(wanted: str = "auto") -> DeviceChoice:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N`; raises UsageError for another word, ResourceError
    for a named GPU that does not work.

    A GPU is used only after a tiny convolution on it gave what the CPU gives: a driver may be
    there without kernels for the card.
    """
    if wanted == "cpu":
        return DeviceChoice("cpu")
    if wanted != "auto" and wanted.partition(":")[0] != "cuda":
        raise UsageError(f"unknown device {wanted!r}; choose auto, cpu, cuda or cuda:N")
    name = "cuda" if wanted == "auto" else wanted
    trouble = _trouble(name)
    if trouble is None:
        return DeviceChoice(name)
    if wanted == "auto":
        return DeviceChoice("cpu", f"encoding on the CPU: {trouble}")
    raise ResourceError(f"device {wanted}: {trouble}; choose --device cpu")


def _trouble(name: str) -> str | None:
    if not torch.cuda.is_available():
        return "no usable GPU"
    image, kernel = torch.arange(75.0).view(1, 3, 5, 5), torch.arange(54.0).view(2, 3, 3, 3)
    try:
        found = conv2d(image.to(name) / 75, kernel.to(name) / 54).cpu()
    except (RuntimeError, ValueError) as error:
        return f"the GPU fails a self-test ({str(error).splitlines()[0]})"
    right = conv2d(image / 75, kernel / 54)
    return None if torch.allclose(found, right, rtol=1e-2) else "the GPU fails a self-test"
