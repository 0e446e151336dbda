"""Maps of images that do not exist, made from those of images that do.

A trained map is moved towards that of another image, location by location, and a little noise is
added: the result looks to the model like the map of a further garment. Noise alone would give near
duplicates and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = (0.1, 0.5)
"""How far an image is moved towards the other one: drawn between these, 0.3 on average."""

NOISE = 0.05
"""Deviation of the noise, as a share of the root mean square of a location or a vector."""


def perturb_maps(maps: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Move each map towards another one.

    Args:
        maps: I [B, d, H, W] float32.
        others: likewise, the images to move towards.
        generator: on the CPU; what it draws depends on the shapes alone.

    Returns:
        [B, d, H, W] float32 in the memory order of `maps`.
    """
    shares = torch.empty(len(maps), 1, 1, 1).uniform_(*SHARES, generator=generator)
    moved = torch.lerp(maps, others, shares)
    return moved + _noise(moved, generator)


def perturb_vectors(vectors: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Likewise for unit vectors [B, d], which stay on the sphere."""
    shares = torch.empty(len(vectors), 1).uniform_(*SHARES, generator=generator)
    moved = torch.lerp(vectors, others, shares)
    return torch.nn.functional.normalize(moved + _noise(moved, generator), dim=-1)


def _noise(values: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise, in proportion to the size of each location: [B, d, ...] -> the same."""
    drawn = torch.empty_like(values).normal_(generator=generator)
    return drawn * (NOISE * values.square().mean(1, keepdim=True).sqrt())
