"""Augmentation that leaves every attribute true: mirror, random crop, dropped channels.

No hue or brightness jitter: colour is an attribute.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(batch: Tensor, flip: bool, crop: float, generator: torch.Generator) -> Tensor:
    """Mirror each picture with probability 1/2 and crop it at random, scaled back to size.

    Args:
        batch: float [B, C, H, W]: images, or feature maps of a frozen backbone.
        flip: whether to mirror.
        crop: smallest share of each side that is kept, in (0, 1]; 1 does not crop.
        generator: source of the draws.

    Returns:
        float [B, C, H, W].
    """
    size = batch.shape[0]
    mirrored = torch.rand(size, generator=generator) < 0.5
    scale = crop + (1 - crop) * torch.rand(size, 2, generator=generator)
    shift = (2 * torch.rand(size, 2, generator=generator) - 1) * (1 - scale)
    if crop >= 1:
        if not flip:
            return batch
        where = mirrored.to(batch.device)[:, None, None, None]
        return torch.where(where, batch.flip(-1), batch)
    theta = torch.zeros(size, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored, -scale[:, 0], scale[:, 0]) if flip else scale[:, 0]
    theta[:, 1, 1] = scale[:, 1]
    theta[:, :, 2] = shift
    field = F.affine_grid(theta.to(batch.device), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, field, padding_mode="border", align_corners=False)


def drop_channels(maps: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a share of each image's channels to zero and scale up the rest.

    Args:
        maps: [B, C, H, W].
        share: of the channels, in [0, 1).
        generator: source of the draws.
    """
    if share <= 0:
        return maps
    kept = torch.rand(maps.shape[0], maps.shape[1], 1, 1, generator=generator) >= share
    return maps * kept.to(maps.device) / (1 - share)
