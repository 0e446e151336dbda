"""What the classifiers of Table 1 have in common: a feature that knows no condition, and heads.

They were made to name categories and attributes, each attribute by a head of its own. All of a
picture is worked out once, in `reduce`; a condition only chooses the attributes that are compared.
Their losses are their own, so that a recipe of theirs has no other weights. None has the network of
its paper: what each does, it does with F, of 14 x 14 cells in the rows of tables. Those that learn
where landmarks are (`needs_landmarks`) are told them in training alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.images.landmarks import OCCLUDED, VISIBLE
from training.losses import category_loss, value_loss
from training.models.embedder import ConditionedEmbedder, Given, chance_roots


class Classifier(ConditionedEmbedder):
    """Z is one feature under every condition, an embedding `chance_roots` of what heads read from
    it; I is [B, channels, 1, 1], Z first."""

    teaches_heads = True

    @property
    def width(self) -> int:
        """Roots of K chances and of K chances of absence."""
        return 2 * self.schema.size

    def attend_raw(self, maps: Tensor, conditions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Z before normalisation [B, C, d], the same under each condition."""
        return maps[:, : self.dim, 0, 0].unsqueeze(1).expand(-1, conditions.shape[1], -1)

    def attend(self, maps: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """Embeddings [B, 2 K] of length 1 of I under label states [B or 1, K]."""
        return chance_roots(self.predict(maps, keys), condition, self.schema)

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Those of the two heads on Z, weights 1."""
        return self.head_losses(self.reduce(trunk)[:, : self.dim, 0, 0].float(), given)

    def head_losses(self, z: Tensor, given: Given) -> dict[str, Tensor]:
        """Cross-entropies of the values, mean over the attributes, and of the category, of Z
        [B, d]; unknown labels are left out."""
        out = {"values": value_loss(self.attribute_head(z), given.labels, self.schema)}
        if self.category_head is not None:
            out["categories"] = category_loss(self.category_head(z), given.category)
        return out


LANDMARKS = 8
"""Slots: left and right collar, sleeve, waistline, hem."""


def located(landmarks: Tensor) -> Tensor:
    """Whether a landmark lies in the view and is known, [B, L] bool of [B, L, 3]."""
    return (landmarks[..., 2] == VISIBLE) | (landmarks[..., 2] == OCCLUDED)


def heatmap_targets(landmarks: Tensor, side: int, radius: float) -> Tensor:
    """exp(-d / 2R), d the distance in cells *not* squared (as in the code of Liu and Lu, ECCV-W
    2018): [B, L, side, side] in 0..1 of landmarks [B, L, 3], R in cells."""
    cells = (torch.arange(side, device=landmarks.device) + 0.5) / side
    across = landmarks[..., 0, None, None] - cells[None, :]
    down = landmarks[..., 1, None, None] - cells[:, None]
    distance = (across.square() + down.square()).sqrt() * side
    return torch.exp(-0.5 * distance / radius)
