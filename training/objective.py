"""The loss of one batch, Eq. 15 and the terms added to it: every image under many conditions.

L = category + lambda * attribute + gamma * triplet (+ value + contrast). The backbone has seen
each image once; here the head looks at its map under a label mask, under every type condition
and under the value conditions drawn for the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from training.conditions import mask_labels, sample_value_conditions
from training.losses.contrastive import contrastive_loss
from training.losses.multitask import category_loss, masked_attribute_loss, value_loss
from training.losses.pairs import Pairs, literal_pairs, type_pairs, value_pairs
from training.losses.triplet import triplet_loss
from training.models.m2fashion import M2Fashion
from training.recipe import Recipe


@dataclass(frozen=True)
class Losses:
    """The terms of one batch's loss, scalars; `total` is weighted, the others are not."""

    total: Tensor
    category: Tensor
    attribute: Tensor
    triplet: Tensor
    value: Tensor
    contrast: Tensor

    def numbers(self) -> dict[str, float]:
        """The terms as floats, by name."""
        return {f.name: float(getattr(self, f.name).detach()) for f in fields(self)}


def batch_losses(
    model: M2Fashion,
    maps: Tensor,
    labels: Tensor,
    category: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
) -> Losses:
    """All losses of a batch.

    Args:
        model: the embedder.
        maps: I [B, d, H, W].
        labels: label states [B, K] in {-1, 0, +1}, float.
        category: [B] int64, -1 unknown.
        recipe: weights and options.
        generator: source of masks, conditions and triplets.

    Returns:
        The terms; a weight of 0 skips the computation of its term.
    """
    zero = maps.sum() * 0
    keys = model.keys(maps)
    by_category = by_attribute = by_value = zero

    if recipe.category_weight or recipe.attribute_weight:
        shown = mask_labels(labels, model.schema, generator)
        z = model.attend_raw(maps, shown.unsqueeze(1), keys).squeeze(1)
        by_attribute = masked_attribute_loss(model.attribute_head(z), labels, shown)
        if model.category_head is not None:
            by_category = category_loss(model.category_head(z), category)

    types = len(model.schema.attributes)
    drawn = sample_value_conditions(
        labels, model.schema, recipe.value_conditions, generator, recipe.max_values
    )
    conditions = torch.cat([model.type_conditions, drawn.states])
    z = model.attend_raw(maps, conditions.unsqueeze(0), keys)  # [B, C, d]
    if recipe.value_weight:
        logits = model.value_logits(z[:, :types])
        by_value = value_loss(logits, labels, model.schema, recipe.smoothing)
    normal = F.normalize(z, dim=-1).transpose(0, 1)  # [C, B, d]
    similarities = normal @ normal.transpose(1, 2)  # Eq. 13
    pairs = _join(type_pairs(labels, model.schema), value_pairs(drawn.fits))
    contrast = triplet = zero
    if recipe.contrast_weight:
        contrast = contrastive_loss(similarities, pairs, recipe.temperature)
    if recipe.triplet_weight:
        if recipe.triplets == "literal":
            pairs = literal_pairs(labels, len(conditions))
        triplet = triplet_loss(similarities, pairs, recipe.margin, recipe.positives, generator)

    total = (
        recipe.category_weight * by_category
        + recipe.attribute_weight * by_attribute
        + recipe.triplet_weight * triplet
        + recipe.value_weight * by_value
        + recipe.contrast_weight * contrast
    )
    return Losses(total, by_category, by_attribute, triplet, by_value, contrast)


def _join(first: Pairs, second: Pairs) -> Pairs:
    return Pairs(
        torch.cat([first.positive, second.positive]), torch.cat([first.negative, second.negative])
    )
