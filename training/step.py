"""One step of training: every image once through the backbone, many conditions on its map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.augmentation import augment, draw_augmentation, drop_channels
from training.batch_plans import BatchPlan
from training.distributed import ALONE, Processes
from training.models.conditioned import ConditionedEmbedder
from training.objective import (
    Batch,
    Look,
    Losses,
    batch_losses,
    draw_looks,
    look,
    sampled_losses,
)
from training.precision import autocast
from training.recipe import Recipe


class Objective(nn.Module):
    """A model with its losses, as one module: `forward` is all that a step differentiates.
    `frozen`: whether inputs are stored maps."""

    def __init__(
        self,
        model: ConditionedEmbedder,
        recipe: Recipe,
        frozen: bool,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.frozen, self.processes = model, recipe, frozen, processes

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
            if not self.frozen:
                inputs = model.trunk(inputs.contiguous(memory_format=torch.channels_last))
            maps = model.reduce(drop_channels(model.standardise(inputs), drawn, drop))
            if batch.attribute is not None:
                asked = model.type_conditions[batch.attribute[own]].unsqueeze(1)
                seen = model.attend_raw(maps, asked)[:, 0]
            else:
                looks = draw_looks(model, batch.labels, recipe, generator)
                seen, told = look(model, maps, looks, own, partners(model, recipe))
        seen = self.processes.gather(seen.float())
        if batch.attribute is not None:
            return sampled_losses(seen, batch.attribute, recipe)
        looked = Look(seen, self.processes.gather(told.float()))
        return batch_losses(model, looked, looks, batch, recipe, generator)


def train_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    generator: torch.Generator,
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
        whole = plan.by_triplet(known).all(0)
        attribute = torch.from_numpy(plan.attribute).masked_fill(~plan.by_image(whole), -1)
        attribute = attribute.to(device)
    inputs, states, names, shown = (of.to(device) for of in (inputs, states, names, shown))
    return Batch(inputs, states, names, shown, attribute)


def partners(model: ConditionedEmbedder, recipe: Recipe) -> bool:
    """Whether nuance is taught, and batches hold partners for it."""
    return bool(recipe.nuance_weight and model.config.nuance and recipe.sampling == "batch")


def fixed_norm(recipe: Recipe) -> bool:
    """Whether batch norms keep the statistics that they have."""
    return recipe.freeze_backbone or recipe.freeze_norm


def set_mode(model: ConditionedEmbedder, recipe: Recipe) -> None:
    """Training mode, but for what the recipe freezes."""
    model.train()
    if fixed_norm(recipe):
        model.standardise.eval()
    if recipe.freeze_backbone:
        model.backbone.eval().requires_grad_(False)
    elif recipe.freeze_norm:
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
