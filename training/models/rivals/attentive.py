"""Attentive: heatmaps refined along a grammar of landmarks, and two attentions on F.

Wang et al., Attentive Fashion Grammar Network for Fashion Landmark Detection and Clothing Category
Classification (CVPR 2018). Kept: bidirectional convolutional recurrence over kinematic chains and
over left-right pairs, weights shared within a grammar; the mean of the heatmaps as the attention
that landmarks teach, and one of an hour-glass that the labels teach, for every channel:
(1 + A_L + A_C) F. Left out: VGG-16, which F is here, so that heatmaps have twice the grid of F (28
of 14), and conv5, for which the mean of the attended F stands. All losses weigh 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.embedder import Given
from training.models.rivals.classifier import (
    LANDMARKS,
    Classifier,
    heatmap_targets,
    located,
)

KINEMATIC = ((0, 2), (1, 3), (0, 4, 6), (1, 5, 7))
"""Collar to sleeve, and collar over waistline to hem, of both sides."""

SYMMETRY = ((0, 1), (2, 3), (4, 5), (6, 7))
"""Left and right."""

WIDTH = 16
"""Channels a landmark."""

RADIUS = 1 / 28
"""R of the targets, a share of the side, as in `upsampling.py`."""


class Attentive(Classifier):
    """I is Z [B, d, 1, 1]."""

    architecture = "attentive"
    title = "Attentive"
    needs_landmarks = True
    paper = "Wang et al., CVPR 2018"

    def build(self, channels: int) -> None:
        """The grammar, the hour-glass and a hidden layer."""
        self.reduce: GrammarAttention = GrammarAttention(channels, self.dim)

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Heatmaps by their binary cross-entropy, and both heads."""
        assert given.landmarks is not None
        seen = self.reduce.see(trunk)
        side = seen.heatmaps.shape[-1]
        wanted = heatmap_targets(given.landmarks, side, RADIUS * side)
        wrong = F.binary_cross_entropy_with_logits(seen.heatmaps.float(), wanted, reduction="none")
        known = located(given.landmarks)
        found = (wrong.mean((2, 3)) * known).sum() / known.sum().clamp(min=1)
        return {"landmarks": found} | self.head_losses(seen.z.float(), given)


class Refined(NamedTuple):
    """Logits of heatmaps [B, 8, 2 H, 2 W], and Z [B, d]."""

    heatmaps: Tensor
    z: Tensor


class GrammarAttention(nn.Module):
    """F [B, channels, H, W] -> I [B, d, 1, 1]."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.landmarks = nn.Sequential(
            nn.Conv2d(channels, 128, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 128, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(128, WIDTH * LANDMARKS, 3, padding=1),
            nn.ReLU(),
        )
        self.grammars = nn.ModuleList([Grammar(KINEMATIC), Grammar(SYMMETRY)])
        self.heatmap = nn.Conv2d(WIDTH, 1, 1)
        self.hour_glass = nn.Sequential(
            nn.Conv2d(channels, 64, 1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.channel = nn.Conv2d(64, channels, 1)
        self.hidden = nn.Linear(channels, dim)

    def see(self, trunk: Tensor) -> Refined:
        """All that is worked out of F."""
        maps = self.landmarks(trunk).unflatten(1, (LANDMARKS, WIDTH))
        states: list[list[Tensor]] = [[] for _ in range(LANDMARKS)]
        for grammar in self.grammars:
            grammar(maps, states)
        refined = maps + torch.stack([torch.stack(own).mean(0) for own in states], 1)
        logits = self.heatmap(refined.flatten(0, 1)).unflatten(0, (len(trunk), LANDMARKS))[:, :, 0]
        size = (trunk.shape[2], trunk.shape[3])
        by_landmarks = F.adaptive_avg_pool2d(logits.sigmoid().mean(1, keepdim=True), size)
        low = F.interpolate(self.hour_glass(trunk), size, mode="bilinear", align_corners=False)
        attended = (1 + by_landmarks + self.channel(low).sigmoid()) * trunk
        return Refined(logits, self.hidden(attended.mean((2, 3))).relu())

    def forward(self, trunk: Tensor) -> Tensor:
        """Z."""
        return self.see(trunk).z[..., None, None]


class Grammar(nn.Module):
    """Recurrence over chains of landmarks: h_j = tanh(conv G_j + conv h_(j-1)), to and fro."""

    def __init__(self, chains: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.chains = chains
        self.input = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.state = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)

    def forward(self, maps: Tensor, states: list[list[Tensor]]) -> None:
        """Add, to each landmark's states, one of every chain that it is in: both directions
        summed, of G [B, 8, 16, H, W]."""
        # Taken apart at once: the gradient of eight selections is eight whole arrays of zeros.
        seen = self.input(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]).unbind(1)
        for chain in self.chains:
            there, back = self._along(seen, chain), self._along(seen, chain[::-1])[::-1]
            for landmark, one, other in zip(chain, there, back, strict=True):
                states[landmark].append(one + other)

    def _along(self, seen: Sequence[Tensor], chain: tuple[int, ...]) -> list[Tensor]:
        out: list[Tensor] = []
        for landmark in chain:
            before = self.state(out[-1]) if out else 0
            out.append(torch.tanh(seen[landmark] + before))
        return out
