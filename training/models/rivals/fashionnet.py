"""FashionNet: landmarks are predicted, and features pooled around them join the whole picture's.

Liu et al., DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations
(CVPR 2016). Kept: a branch for the positions and visibility of landmarks; maximum pooling of F in a
window around each, zero as far as it is not visible; local and global layers, fused; the L2 loss
masked by visibility, classes balanced by their counts, landmarks first and then the rest. Left out:
VGG-16, which F is here; the triplet loss, which needs pairs of pictures of one item; the rounds of
training branch by branch: the weights of the losses change after a quarter of the epochs instead.
Windows lie around the predicted landmarks in training too, as they do when nobody tells of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.images.landmarks import NONE, VISIBLE
from training.losses import category_loss, value_loss
from training.models.embedder import Given
from training.models.rivals.classifier import LANDMARKS, Classifier, located

STATES = 3
"""Visible, occluded, cut off."""

WINDOW = 2 / 7
"""Side of a window, a share of the picture's."""

MOST = 20.0
"""A present value weighs as much as its absences together, but no more than this."""

FIRST = 0.25
"""Share of the epochs in which the landmarks come first."""


class FashionNet(Classifier):
    """I is [Z; positions 16; logits of visibility 24]."""

    architecture = "fashionnet"
    title = "FashionNet"
    needs_landmarks = True
    paper = "Liu et al., CVPR 2016"

    def build(self, channels: int) -> None:
        """The landmarks' branch, the local and the global layer, their fusion, and counts."""
        self.reduce: LandmarkPooling = LandmarkPooling(channels, self.grid[0], self.dim)
        self.register_buffer("counts", torch.ones(2, self.schema.size))
        self.counts: Tensor  # how often values were present and absent so far [2, K]

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Positions, visibility, values, category; at first 10, 1, 0.1, 0.1, then 1 each."""
        assert given.landmarks is not None
        seen = self.reduce.see(trunk)
        known, states = located(given.landmarks), given.landmarks[..., 2].long()
        apart = (seen.places.float() - given.landmarks[..., :2]).square().sum(-1)
        logits = seen.states.float().transpose(1, 2)
        told = F.cross_entropy(logits, states, ignore_index=NONE, reduction="sum")
        first = given.progress < FIRST
        out = {
            "landmarks": (10 if first else 1) * (apart * known).sum() / known.sum().clamp(min=1),
            "visibility": told / (states != NONE).sum().clamp(min=1),
        }
        z = F.dropout(seen.z.float(), 0.5, self.training)
        rest = 0.1 if first else 1.0
        with torch.no_grad():
            self.counts += torch.stack([(given.labels == s).sum(0) for s in (1, -1)])
        present = (self.counts[1] / self.counts[0]).clamp(max=MOST)
        weights = torch.where(given.labels > 0, present, torch.ones_like(present))
        logits = self.attribute_head(z)
        out["values"] = rest * value_loss(logits, given.labels, self.schema, weights)
        if self.category_head is not None:
            out["categories"] = rest * category_loss(self.category_head(z), given.category)
        return out


class Pooled(NamedTuple):
    """Z [B, d], positions in 0..1 [B, 8, 2] and logits of visibility [B, 8, 3]."""

    z: Tensor
    places: Tensor
    states: Tensor


class LandmarkPooling(nn.Module):
    """F [B, channels, grid, grid] -> I [B, d + 40, 1, 1]."""

    def __init__(self, channels: int, grid: int, dim: int) -> None:
        super().__init__()
        cells = max(1, grid // 2)  # 7x7 of 14x14
        self.convolution = nn.Conv2d(channels, 256, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.hidden = nn.Linear(256 * cells**2, 1024)
        self.places = nn.Linear(1024, 2 * LANDMARKS)
        self.states = nn.Linear(1024, STATES * LANDMARKS)
        self.near = nn.Linear(LANDMARKS * channels, 1024)
        self.whole = nn.Linear(channels, 1024)
        self.fusion = nn.Linear(2048, dim)

    def see(self, trunk: Tensor) -> Pooled:
        """All that is worked out of F."""
        hidden = self.hidden(self.pool(self.convolution(trunk).relu()).flatten(1)).relu()
        places = self.places(hidden).sigmoid().unflatten(1, (LANDMARKS, 2))
        states = self.states(hidden).unflatten(1, (LANDMARKS, STATES))
        visible = states.softmax(-1)[..., VISIBLE, None]
        local = landmark_features(trunk, places) * visible
        both = [self.near(local.flatten(1)).relu(), self.whole(trunk.mean((2, 3))).relu()]
        return Pooled(self.fusion(torch.cat(both, 1)).relu(), places, states)

    def forward(self, trunk: Tensor) -> Tensor:
        """All of it, Z first."""
        return torch.cat([part.flatten(1) for part in self.see(trunk)], 1)[..., None, None]


def landmark_features(maps: Tensor, places: Tensor) -> Tensor:
    """The maximum of 2x2 bilinear samples of a window around each landmark: [B, L, channels], of
    F [B, channels, H, W] and positions in 0..1 [B, L, 2]."""
    step = WINDOW / 4
    steps = [(x, y) for x in (-step, step) for y in (-step, step)]
    points = places[:, :, None] + places.new_tensor(steps)  # [B, L, 4, 2]
    samples = F.grid_sample(maps, 2 * points - 1, padding_mode="border", align_corners=False)
    return samples.amax(-1).transpose(1, 2)
