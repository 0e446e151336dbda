"""A model run by torch: on a GPU, or on a CPU where a user asks for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.encode.encode import EncodedBatch, Forward
from training.device import autocast
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.embedder import Embedder


def torch_forward(
    model: Embedder, preprocessing: Preprocessing, device: str, precision: str = "float32"
) -> Forward:
    """A model on a device, best in channels-last order.

    Its backbone computes in `float32` or `bfloat16`. What follows is a few per cent of the work and
    computes in float32, since what is stored comes from it.
    """

    @torch.inference_mode()
    def run(pixels: NDArray[np.uint8]) -> EncodedBatch:
        try:
            images = normalise(torch.from_numpy(pixels).to(device), preprocessing)
            images = images.contiguous(memory_format=torch.channels_last)
            with autocast(precision, images.device.type):
                trunk = model.trunk(images)
            described = model.describe(trunk.float())
            return EncodedBatch(*(part.float().cpu().numpy() for part in described))
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            if "DefaultCPUAllocator" in str(error):  # torch has no exception of its own for it
                raise MemoryError(str(error)) from error
            raise

    if device == "cpu":
        own, forward = torch.get_num_threads(), Forward(run, device, _compute_alone)
        assert forward.pool, "its threads are there"
        torch.set_num_threads(own)  # what threads to come start with, too
        return forward
    return Forward(run, device, free=torch.cuda.empty_cache)


def _compute_alone() -> None:
    torch.get_num_threads()  # else torch sets this thread up later and undoes the next line
    torch.set_num_threads(1)
