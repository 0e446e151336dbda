"""What a model does with a batch of pictures first: normalise and, in training, change it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.images.preprocessing import Preprocessing


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [B, 3, S, S] -> float32 (x / 255 - mean) / std of the same shape, on its device."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(1, 3, 1, 1)
    floats = images.to(torch.float32, copy=True)
    return floats.div_(255).sub_(mean).div_(std)  # in place: memory is what this waits for


@dataclass(frozen=True)
class Augmentation:
    """How the pictures of a batch are changed."""

    mirrored: Tensor  # [B] bool
    scale: Tensor  # share of the width and the height that is kept, [B, 2] in (0, 1]
    shift: Tensor  # centre of the crop, [B, 2] in -1..1 of half a side
    kept: Tensor  # channels of the maps that are kept, [B, C, 1, 1] bool

    def of(self, part: slice | Tensor) -> Augmentation:
        """That of some of the pictures: a slice, or their numbers [M] int64."""
        return Augmentation(
            self.mirrored[part], self.scale[part], self.shift[part], self.kept[part]
        )


def draw_augmentation(
    size: int, channels: int, flip: bool, crop: float, drop: float, generator: torch.Generator
) -> Augmentation:
    """Draw for B = `size` pictures: whether to mirror one, which share of each side is kept, at
    least `crop` in (0, 1], and which of the map's channels, but for the share `drop` in [0, 1)."""
    mirrored = torch.rand(size, generator=generator) < (0.5 if flip else 0.0)
    scale = crop + (1 - crop) * torch.rand(size, 2, generator=generator)
    shift = (2 * torch.rand(size, 2, generator=generator) - 1) * (1 - scale)
    kept = torch.ones(size, channels, 1, 1, dtype=torch.bool)
    if drop > 0:
        kept = torch.rand(size, channels, 1, 1, generator=generator) >= drop
    return Augmentation(mirrored, scale, shift, kept)


def augment(batch: Tensor, drawn: Augmentation) -> Tensor:
    """Mirror and crop pictures or their maps, scaled back to size: float [B, C, H, W], both."""
    if bool((drawn.scale >= 1).all()):
        if not bool(drawn.mirrored.any()):
            return batch
        where = drawn.mirrored.to(batch.device)[:, None, None, None]
        return torch.where(where, batch.flip(-1), batch)
    theta = torch.zeros(len(batch), 2, 3)
    theta[:, 0, 0] = torch.where(drawn.mirrored, -drawn.scale[:, 0], drawn.scale[:, 0])
    theta[:, 1, 1] = drawn.scale[:, 1]
    theta[:, :, 2] = drawn.shift
    field = F.affine_grid(theta.to(batch.device), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, field, padding_mode="border", align_corners=False)


def drop_channels(maps: Tensor, drawn: Augmentation, share: float) -> Tensor:
    """Set the dropped channels of maps [B, C, H, W] to zero and scale up the rest."""
    if share <= 0:
        return maps
    return maps * drawn.kept.to(maps.device) / (1 - share)
