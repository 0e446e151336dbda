"""Several processes that train one model (`torchrun`).

Every process draws what one process would draw for the whole batch and works on its share of the
images; embeddings are gathered, so that pairs are formed across the shares and the loss is that
of the whole batch. Only batch norms that are being trained differ: each sees its process' share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.nn.functional import all_gather

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
