"""Maps of images that do not exist, made from those of images that do.

A trained map is moved towards that of another image, location by location, and a little noise is
added: the result looks to the model like the map of a further garment. Noise alone would give near
duplicates and nothing else.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SHARES = (0.1, 0.5)
"""How far an image is moved towards the other one: drawn between these, 0.3 on average."""

NOISE = 0.05
"""Deviation of the noise, as a share of the root mean square of a location or a vector."""


def perturb_maps(maps: Tensor, others: Tensor, generator: np.random.Generator) -> Tensor:
    """Move each map towards another one.

    Args:
        maps: I [B, d, H, W] float32.
        others: likewise, the images to move towards.
        generator: what it draws depends on the shapes and on whether maps are on a GPU.

    Returns:
        [B, d, H, W] float32 in the memory order of `maps`.
    """
    shares = torch.from_numpy(generator.uniform(*SHARES, (len(maps), 1, 1, 1))).float()
    moved = torch.lerp(maps, others, shares.to(maps.device))
    return moved + _noise(moved, generator)


def perturb_vectors(vectors: Tensor, others: Tensor, generator: np.random.Generator) -> Tensor:
    """Likewise for unit vectors [B, d], which stay on the sphere."""
    shares = torch.from_numpy(generator.uniform(*SHARES, (len(vectors), 1))).float()
    moved = torch.lerp(vectors, others, shares)
    return torch.nn.functional.normalize(moved + _noise(moved, generator), dim=-1)


def _noise(values: Tensor, generator: np.random.Generator) -> Tensor:
    """Gaussian noise, in proportion to the size of each location: [B, d, ...] -> the same."""
    if values.is_cuda:
        own = torch.Generator(values.device).manual_seed(int(generator.integers(1 << 62)))
        drawn = torch.randn(values.numel(), generator=own, device=values.device)
    else:  # numpy draws float32 several times faster than torch does.
        drawn = torch.from_numpy(generator.standard_normal(values.numel(), dtype=np.float32))
    return drawn.as_strided(values.shape, values.stride()) * (
        NOISE * values.square().mean(1, keepdim=True).sqrt()
    )
