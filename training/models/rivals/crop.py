"""The cheap crop of ASEN++ and RPF: a closer look at the box where attention lies.

Their authors cut the box out of the original picture and send it through a network of its own, a
pass for each attribute. Here it is cut out of the stored map of the stage below the last one, so
that one pass of a frozen backbone serves all attributes. Its detail is the grid's, so it is
resampled to half as many cells a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ABOVE = 0.1
"""Attention, scaled to 0..1, from which a point lies in the box."""

FINE = 4
"""Points of a cell's side at which attention is interpolated."""


class From(nn.Module):
    """The channels of F from `first` on: [B, channels, H, W] -> [B, channels - first, H, W]."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, trunk: Tensor) -> Tensor:
        """A view."""
        return trunk[:, self.first :]


@torch.no_grad()
def attended_box(alpha: Tensor) -> Tensor:
    """The smallest square inside the picture around where attention lies: [N, H, H] >= 0 -> its
    left, top and side [N, 3] in 0..1; the whole picture where attention is uniform."""
    fine = F.interpolate(alpha.unsqueeze(1), scale_factor=FINE, mode="bilinear").squeeze(1)
    low, high = fine.amin((1, 2), keepdim=True), fine.amax((1, 2), keepdim=True)
    inside = (fine - low >= ABOVE * (high - low)).to(torch.uint8)
    seen = torch.stack([inside.amax(1), inside.amax(2)], 1)  # of columns, of rows [N, 2, points]
    points = seen.shape[-1]
    start = seen.argmax(-1).to(alpha.dtype) / points  # of equal ones the first
    end = 1 - seen.flip(-1).argmax(-1).to(alpha.dtype) / points
    side = (end - start).amax(-1, keepdim=True)
    corner = ((start + end - side) / 2).clamp(min=0)
    return torch.cat([torch.minimum(corner, 1 - side), side], -1)


def cropped(size: int) -> int:
    """Cells of a crop's side, of those of the map's."""
    return (size + 1) // 2


def crop(maps: Tensor, alpha: Tensor) -> Tensor:
    """What is attended of maps [B, channels, H, H] under each condition, alpha [B, C, H * H]:
    [B * C, channels, S, S], S = `cropped(H)`."""
    conditions, size = alpha.shape[1], maps.shape[-1]
    box = attended_box(alpha.reshape(-1, size, size)).to(maps.dtype)
    side, shift = box[:, 2], 2 * box[:, :2] + box[:, 2:] - 1
    theta = torch.diag_embed(side[:, None].expand(-1, 2))
    whole = maps.repeat_interleave(conditions, 0)
    shape = [*whole.shape[:2], cropped(size), cropped(size)]
    grid = F.affine_grid(torch.cat([theta, shift[:, :, None]], -1), shape, False)
    return F.grid_sample(whole, grid, padding_mode="border", align_corners=False)
