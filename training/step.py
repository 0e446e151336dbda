"""One step of training: every image once through the backbone, many conditions on its map.

The loss is Eq. 15 and the terms added to it: category + lambda * attribute + gamma * triplet
(+ value + contrast + nuance), and what a model adds of its own. The head looks at an image's map
under a label mask, under every type condition and under the value conditions drawn for the batch.
Three steps, so that several processes can share a batch: `draw_looks` for all of its images, `look`
at one's own, `batch_losses` over all embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.device import autocast
from training.images.landmarks import moved
from training.images.tensors import Augmentation, augment, draw_augmentation, drop_channels
from training.losses import (
    Pairs,
    category_loss,
    contrastive_loss,
    item_pairs,
    literal_pairs,
    masked_attribute_loss,
    sampled_hinge,
    triplet_loss,
    type_pairs,
    value_loss,
    value_pairs,
)
from training.models.backbones import last_stage
from training.models.config import Freeze
from training.models.embedder import ConditionedEmbedder, Given, Seen
from training.processes import ALONE, Processes
from training.recipe import Recipe
from training.sampling import BatchPlan, fits, mask_labels, sample_value_conditions


@dataclass(frozen=True)
class Batch:
    """What a step is given. With several processes `inputs` are this one's share, the rest is of
    the whole batch."""

    inputs: Tensor  # normalised images [b, 3, S, S], or what `trunk_from` takes of a frozen one
    labels: Tensor  # label states [B, K] float
    category: Tensor  # [B] int64, -1 unknown
    # what each picture shows, for nuance: pictures of one item, and copies of one picture, have one
    # number [B] int64, -1 where it could not be read
    shows: Tensor
    # with sampled triplets, the attribute of each image's triplet [B] int64, -1 to leave the
    # triplet out; the three images of a triplet follow each other
    attribute: Tensor | None = None
    landmarks: Tensor | None = None  # of `inputs`, see `Given`
    progress: float = 0.0  # likewise


@dataclass(frozen=True)
class Losses:
    """The terms of one batch's loss, scalars; `total` is weighted, the others are not."""

    total: Tensor
    category: Tensor
    attribute: Tensor
    triplet: Tensor
    value: Tensor
    contrast: Tensor
    nuance: Tensor
    own: dict[str, Tensor] = field(default_factory=dict)  # of the model, as they are

    def adding(self, own: dict[str, Tensor]) -> Losses:
        """With a model's own terms."""
        return replace(self, total=self.total + sum(own.values()), own=own) if own else self

    def numbers(self) -> dict[str, float]:
        """The terms as floats, by name."""
        terms = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "own"}
        return {name: float(term.detach()) for name, term in (terms | self.own).items()}


class Looks(NamedTuple):
    """Under which conditions a batch is looked at."""

    # label states that each image's masked look may know [B, K], None without that look
    shown: Tensor | None
    conditions: Tensor  # conditions of all images [C, K]: the types, then the drawn values
    fits: Tensor  # whether images fit the drawn value conditions [B, C - types] int8


class Look(NamedTuple):
    """What the head gave for a batch's maps."""

    # Z before normalisation under the conditions [B, C, d] and, where labels were shown, under the
    # mask: [B, C + 1, d]
    z: Tensor
    nuance: Tensor  # of the attributes [B, N]; N is 0 where nothing is taught of it


def draw_looks(
    model: ConditionedEmbedder, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Looks:
    """Draw masks and conditions for label states [B, K] float.

    A model that sees only which attributes are asked for is shown types alone.
    """
    shown = None
    if (recipe.category_weight or recipe.attribute_weight) and model.sees_values:
        shown = mask_labels(labels, model.schema, generator)
    count = recipe.value_conditions if model.sees_values else 0
    drawn = sample_value_conditions(labels, model.schema, count, generator, recipe.max_values)
    return Looks(shown, torch.cat([model.type_conditions, drawn]), fits(labels, drawn))


def look(
    model: ConditionedEmbedder, maps: Tensor, looks: Looks, own: slice, nuance: bool = False
) -> Look:
    """Look at I [b, *, h, w] of the images `own` of a batch; `nuance`: whether it is wanted."""
    keys, types = model.keys(maps), len(model.schema.attributes)
    seen = model.see(maps, looks.conditions.unsqueeze(0), keys)
    told = maps.new_zeros(len(maps), 0)
    if nuance:
        told = model.nuance_of(Seen(seen.attended[:, :types], seen.z[:, :types]))
    z = seen.z
    if looks.shown is not None:
        z = torch.cat([z, model.see(maps, looks.shown[own].unsqueeze(1), keys).z], 1)
    return Look(z, told)


def batch_losses(
    model: ConditionedEmbedder,
    looked: Look,
    looks: Looks,
    batch: Batch,
    recipe: Recipe,
    generator: torch.Generator,
) -> Losses:
    """All losses of a batch, `looked` at in float32; a weight of 0 skips its term."""
    seen, labels, schema = looked.z, batch.labels, model.schema
    zero = seen.sum() * 0
    by_category = by_attribute = by_value = contrast = triplet = nuance = zero
    types, count = len(schema.attributes), len(looks.conditions)
    if looks.shown is not None:
        z = seen[:, -1]
        by_attribute = masked_attribute_loss(model.attribute_head(z), labels, looks.shown)
        if model.category_head is not None:
            by_category = category_loss(model.category_head(z), batch.category)
    if recipe.value_weight:
        by_value = value_loss(model.value_logits(seen[:, :types]), labels, schema)
    if recipe.contrast_weight or recipe.triplet_weight:
        normal = F.normalize(seen[:, :count], dim=-1).transpose(0, 1)
        similarities = normal @ normal.transpose(1, 2)  # Eq. 13
        by_type, drawn = type_pairs(labels, schema), value_pairs(looks.fits)
        positive = torch.cat([by_type.positive, drawn.positive])
        pairs = Pairs(positive, torch.cat([by_type.negative, drawn.negative]))
        if recipe.contrast_weight:
            contrast = contrastive_loss(similarities, pairs, recipe.temperature)
        if recipe.triplet_weight:
            if recipe.triplets == "literal":
                pairs = literal_pairs(labels, count)
            triplet = triplet_loss(similarities, pairs, recipe.margin, recipe.positives, generator)
    if looked.nuance.shape[1]:
        # Mean cosine of the unit vectors that stand side by side.
        alike = looked.nuance @ looked.nuance.T / types
        nuance = contrastive_loss(alike[None], item_pairs(batch.shows), recipe.nuance_temperature)
    total = (
        recipe.category_weight * by_category
        + recipe.attribute_weight * by_attribute
        + recipe.triplet_weight * triplet
        + recipe.value_weight * by_value
        + recipe.contrast_weight * contrast
        + recipe.nuance_weight * nuance
    )
    return Losses(total, by_category, by_attribute, triplet, by_value, contrast, nuance)


def sampled_losses(seen: Tensor, attribute: Tensor, recipe: Recipe) -> Losses:
    """The hinge loss of sampled triplets alone, of Z before normalisation of each image under its
    triplet's type condition [3 M, d] float32; `attribute` as in `Batch`."""
    zero = seen.sum() * 0
    hinge = sampled_hinge(F.normalize(seen[attribute >= 0], dim=-1), recipe.margin)
    return Losses(hinge, zero, zero, hinge, zero, zero, zero)


class Objective(nn.Module):
    """A model with its losses, as one module: `forward` is all that a step differentiates.
    `freeze`: what inputs are, see `ConditionedEmbedder.trunk_from`."""

    def __init__(
        self,
        model: ConditionedEmbedder,
        recipe: Recipe,
        freeze: Freeze,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.freeze, self.processes = model, recipe, freeze, processes

    def forward(self, batch: Batch, generator: torch.Generator) -> Losses:
        """The losses of a batch; all draws are made for the whole of it, by every process from a
        generator in the same state."""
        recipe, model = self.recipe, self.model
        total, own = len(batch.labels), self.processes.share(len(batch.labels))
        # The stored copies of a frozen backbone are mirrored and cropped already.
        flip, crop = (False, 1.0) if recipe.stored_copies else (recipe.flip, recipe.crop)
        channels, drop = model.last_stage.stop, recipe.drop_maps
        drawn = draw_augmentation(total, channels, flip, crop, drop, generator).of(own)
        with autocast(recipe.precision, batch.inputs.device.type):
            inputs = augment(batch.inputs, drawn)
            if self.freeze == "none":
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            trunk = model.trunk_from(inputs, self.freeze)
            trunk = drop_channels(model.standardise(trunk), drawn, drop)
            extra = model.own_losses(trunk, self._given(batch, drawn, generator))
            if extra and not recipe.teaches:
                zero = torch.zeros((), device=trunk.device)
                return Losses(zero, zero, zero, zero, zero, zero, zero).adding(extra)
            maps = model.reduce(trunk)
            if batch.attribute is not None:
                asked = model.type_conditions[batch.attribute[own]].unsqueeze(1)
                seen = model.attend_raw(maps, asked)[:, 0]
            else:
                looks = draw_looks(model, batch.labels, recipe, generator)
                seen, told = look(model, maps, looks, own, partners(model, recipe))
        seen = self.processes.gather(seen.float())
        if batch.attribute is not None:
            return sampled_losses(seen, batch.attribute, recipe).adding(extra)
        looked = Look(seen, self.processes.gather(told.float()))
        return batch_losses(model, looked, looks, batch, recipe, generator).adding(extra)

    def _given(self, batch: Batch, drawn: Augmentation, generator: torch.Generator) -> Given:
        """What is known of this process' share, whose views were changed as `drawn`."""
        own = self.processes.share(len(batch.labels))
        known = batch.labels[own], batch.category[own], batch.shows[own]
        attribute = None if batch.attribute is None else batch.attribute[own]
        marks = None if batch.landmarks is None else moved(batch.landmarks, drawn)
        # A copy: how much a model draws of its own share must not change what all draw after it.
        return Given(*known, attribute, marks, batch.progress, generator.clone_state())


def train_step(
    objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, generator: torch.Generator
) -> dict[str, float]:
    """One step of an `Objective`, maybe wrapped to average gradients; the terms of the loss."""
    losses: Losses = objective(batch, generator)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses.numbers()


def lay_out(rows: Sequence[int], read: Sequence[int], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of the rows `read` in the order of `rows`, those that could not be read as zeros:
    [b, ...]; and which of them were read [b] bool."""
    if list(read) == list(rows):
        return inputs, torch.ones(len(rows), dtype=torch.bool)
    place = {row: number for number, row in enumerate(read)}
    known = torch.tensor([row in place for row in rows])
    out = inputs.new_zeros(len(rows), *inputs.shape[1:])
    if bool(known.any()):
        out[known] = inputs[torch.tensor([place[row] for row in rows if row in place])]
    return out, known


def make_batch(
    plan: BatchPlan,
    inputs: Tensor,
    known: Tensor,
    labels: Tensor,
    category: Tensor,
    shows: Tensor,
    device: str,
) -> Batch:
    """A step's batch; of an image that could not be read nothing is known."""
    states = labels[plan.rows].float().masked_fill(~known[:, None], 0)
    names, shown = (of[plan.rows].masked_fill(~known, -1) for of in (category, shows))
    attribute = None
    if plan.attribute is not None:
        whole = known.reshape(-1, 3).all(1).repeat_interleave(3)
        attribute = torch.from_numpy(plan.attribute).masked_fill(~whole, -1).to(device)
    inputs, states, names, shown = (of.to(device) for of in (inputs, states, names, shown))
    return Batch(inputs, states, names, shown, attribute)


def partners(model: ConditionedEmbedder, recipe: Recipe) -> bool:
    """Whether nuance is taught, and batches hold partners for it."""
    return bool(recipe.nuance_weight and model.config.nuance and recipe.sampling == "batch")


def fixed_norm(recipe: Recipe) -> bool:
    """Whether batch norms keep the statistics that they have."""
    return recipe.freeze != "none" or recipe.freeze_norm


def tuned(model: ConditionedEmbedder, recipe: Recipe) -> nn.Module:
    """What of the backbone is trained."""
    if recipe.freeze == "none":
        return model.backbone
    return last_stage(model.backbone) if recipe.freeze == "stem" else nn.Sequential()


def set_mode(model: ConditionedEmbedder, recipe: Recipe) -> None:
    """Training mode, but for what the recipe freezes."""
    model.train()
    if fixed_norm(recipe):
        model.standardise.eval()
    if recipe.freeze != "none":
        model.backbone.eval().requires_grad_(False)
        tuned(model, recipe).requires_grad_(True)
    elif recipe.freeze_norm:
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
