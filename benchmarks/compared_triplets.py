"""Which triplets a training batch really compares, recomputed from the draws that it made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.augmentation import draw_augmentation
from training.losses.pairs import Pairs, type_pairs, value_pairs
from training.models.conditioned import ConditionedEmbedder
from training.recipe import Recipe
from training.step import draw_looks


@dataclass(frozen=True)
class TripletCount:
    """Triplets that a batch compares.

    Args:
        anchors: pairs of an anchor and a condition that have a positive and a negative: the
            triplets if each pair stood for a single one.
        compared: distinct (condition, anchor, positive, negative) of the triplet loss.
    """

    anchors: int
    compared: int


def batch_pairs(
    model: ConditionedEmbedder, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Pairs:
    """The pairs that `Objective` forms in a batch, under all its conditions.

    Args:
        model: gives the schema.
        labels: label states [B, K] float.
        recipe: options.
        generator: in the state that the step met; left in the one that the triplet loss meets.
    """
    channels = model.last_stage.stop
    draw_augmentation(
        len(labels), channels, recipe.flip, recipe.crop, recipe.drop_maps, generator
    )  # drawn before the conditions
    looks = draw_looks(model, labels, recipe, generator)
    types, values = type_pairs(labels, model.schema), value_pairs(looks.fits)
    return Pairs(
        torch.cat([types.positive, values.positive]), torch.cat([types.negative, values.negative])
    )


def count_triplets(pairs: Pairs, positives: int, generator: torch.Generator) -> TripletCount:
    """Count what `triplet_loss` compares: drawn positives with all negatives of their anchor.

    Args:
        pairs: [C, B, B] each.
        positives: drawn for each anchor, with replacement; one drawn twice counts once.
        generator: in the state that `triplet_loss` meets.
    """
    alike = pairs.positive.flatten(0, 1)  # [C * B, B]
    unlike = pairs.negative.flatten(0, 1)
    anchors = alike.any(1) & unlike.any(1)
    count = int(anchors.sum())
    if count == 0:
        return TripletCount(0, 0)
    weights = alike[anchors].float().cpu()
    picked = torch.multinomial(weights, positives, replacement=True, generator=generator)
    drawn = torch.zeros_like(weights, dtype=torch.int64).scatter_(1, picked, 1).sum(1)
    return TripletCount(count, int((drawn * unlike[anchors].sum(1).cpu()).sum()))
