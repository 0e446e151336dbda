"""Upsampling: landmarks' heatmaps at high resolution, then an attention that looks at them.

Liu and Lu, Deep Fashion Analysis with Feature Map Upsampling and Landmark-Driven Attention (ECCV
Workshops 2018), by the authors' code. Kept: the branch of three transposed convolutions, its
targets and its loss, masked; the maximum over the landmarks beside F in a U-Net that ends in tanh;
(1 + A) F; a hidden layer each for categories and for values; weights 1, 20 and 10; absent values
weigh a tenth. Left out: VGG-16, which F is here, so heatmaps have eight times the grid of F (112 of
14), and conv5, for which the mean of the attended F stands; the crop to the garment's box, which
users do not give. The code takes landmarks that a garment lacks for visible ones in the corner;
here they are masked. Two logits a value rank as their difference does, so there is one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import category_loss, value_loss
from training.models.embedder import Given
from training.models.rivals.classifier import (
    LANDMARKS,
    Classifier,
    heatmap_targets,
    located,
)

ABSENT = 0.1
"""Weight of an absent value of a multi-valued attribute in the loss; a present one's is 1."""

RADIUS = 1 / 28
"""R of the targets, a share of the side (8 pixels of 224)."""


class Upsampling(Classifier):
    """I is [Z of the values; Z of the category], both [B, d]."""

    architecture = "upsampling"
    title = "Upsampling"
    needs_landmarks = True
    paper = "Liu and Lu, ECCV Workshops 2018"

    def build(self, channels: int) -> None:
        """The landmarks' branch, the U-Net and a hidden layer a task."""
        self.reduce: LandmarkAttention = LandmarkAttention(channels, self.dim)

    def category_logits(self, maps: Tensor) -> Tensor | None:
        """By the category's own hidden layer."""
        head = self.category_head
        return None if head is None else head(maps[:, self.dim :, 0, 0])

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Heatmaps 10, values 20, category 1."""
        assert given.landmarks is not None
        seen = self.reduce.see(trunk)
        heatmaps = seen.heatmaps.float()
        side = heatmaps.shape[-1]
        wrong = (heatmaps - heatmap_targets(given.landmarks, side, RADIUS * side)).square()
        wanted = located(given.landmarks)[..., None, None]
        out = {"landmarks": 10 * (wrong * wanted).mean()}
        logits = self.attribute_head(seen.values.float())
        weights = torch.where(given.labels > 0, 1.0, ABSENT)
        out["values"] = 20 * value_loss(logits, given.labels, self.schema, weights)
        if self.category_head is not None:
            named = self.category_head(seen.category.float())
            out["categories"] = category_loss(named, given.category)
        return out


class Attended(NamedTuple):
    """Heatmaps [B, 8, 8 H, 8 W], and both hidden layers [B, d]."""

    heatmaps: Tensor
    values: Tensor
    category: Tensor


class LandmarkAttention(nn.Module):
    """F [B, channels, H, W] -> I [B, 2 d, 1, 1]."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.heatmaps = heatmap_branch(channels)
        self.attention = UNet(channels + 1, channels)
        self.values = nn.Linear(channels, dim)
        self.category = nn.Linear(channels, dim)

    def see(self, trunk: Tensor) -> Attended:
        """All that is worked out of F."""
        heatmaps = self.heatmaps(trunk)
        highest = heatmaps.amax(1, keepdim=True)
        size = (trunk.shape[2], trunk.shape[3])
        highest = F.interpolate(highest, size, mode="bilinear", align_corners=False)
        attention = torch.tanh(self.attention(torch.cat([trunk, highest], 1)))
        pooled = ((1 + attention) * trunk).mean((2, 3))
        return Attended(heatmaps, self.values(pooled).relu(), self.category(pooled).relu())

    def forward(self, trunk: Tensor) -> Tensor:
        """Both hidden layers, those of the values first."""
        seen = self.see(trunk)
        return torch.cat([seen.values, seen.category], 1)[..., None, None]


def heatmap_branch(channels: int) -> nn.Sequential:
    """F [B, channels, H, W] -> a heatmap a landmark [B, 8, 8 H, 8 W]."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 1)]
    for inputs, outputs in ((64, 64), (64, 64), (64, 128)):
        layers += [nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1)]
    for inputs, outputs, convolutions in ((128, 64, 2), (64, 32, 2), (32, 16, 1)):
        layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)]
        for _ in range(convolutions):
            layers += [nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(16, LANDMARKS, 1))


class UNet(nn.Module):
    """Two steps down by 4x4 convolutions of stride 2 and up again, with skips: [B, inputs, H, W]
    -> [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.start = nn.Conv2d(inputs, 32, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(32, 64, 4, 2, 1), nn.Conv2d(64, 128, 4, 2, 1)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ConvTranspose2d(128, 32, 4, 2, 1)]
        )
        self.end = nn.Conv2d(64, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Sides that are odd come out as they went in."""
        skips = [self.start(x).relu()]
        for layer in self.down:
            skips.append(layer(skips[-1]).relu())
        out = skips.pop()
        for layer in self.up:
            skip = skips.pop()
            out = torch.cat([layer(out, output_size=skip.shape[-2:]).relu(), skip], 1)
        return self.end(out)  # type: ignore[no-any-return]
