"""How a model is trained: every number of the recipe, with the defaults chosen on `valid`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from training.models.config import ModelConfig
from training.preprocessing import Preprocessing
from training.validated import Count, FromZero, Positive, Share, Weight, check_fields


@dataclass(frozen=True)
class Recipe:
    """Training options.

    Args:
        epochs: passes over the training split.
        batch_size: images in a batch; conditions and triplets are formed among them.
        learning_rate: of the new layers, at its peak.
        backbone_learning_rate: of the backbone, when it is trained.
        weight_decay: of AdamW.
        schedule: `cosine` to zero with a short warm-up, or `decay` (a factor each epoch).
        decay: that factor.
        freeze_backbone: keep the backbone as loaded; its feature maps are then computed once.
        freeze_norm: keep the batch norms of the backbone in inference mode while it is trained.
        category_weight: of the category loss (Eq. 10).
        attribute_weight: lambda of Eq. 15, masked attribute loss.
        triplet_weight: gamma of Eq. 15.
        value_weight: of the cross-entropy of each attribute's values under its type condition.
        contrast_weight: of the supervised contrastive loss.
        nuance_weight: of the contrastive loss on nuance; with it, half of a batch are partners of
            the other half: another picture of the same item, else another copy of the picture.
        nuance_temperature: of that loss.
        margin: m of Eq. 14.
        temperature: of the contrastive loss.
        sampling: `batch` (all conditions of all images of a batch) or `triplets` (triplets drawn
            over the split, three images each, under their attribute's type condition and with the
            hinge loss alone: the way of the methods compared with).
        triplets_per_epoch: with `triplets`, how many are an epoch; `batch_size` are a batch.
        triplets: `conditional` (ASEN) or `literal` (share any value, share none).
        positives: positives drawn for each anchor and condition.
        value_conditions: value conditions drawn for each batch, single and combined.
        max_values: most values in one condition.
        drop_maps: dropout on the channels of the feature map, 0 to below 1.
        crop: images are cropped at random to at least this share of each side.
        flip: mirror images at random.
        copies: with a frozen backbone, how many copies of each training image, mirrored and cropped
            at random, have their maps stored beside its own; every time it is shown one of them or
            itself is drawn. With 0 the image's own map is mirrored and cropped.
        precision: `float32`, `bfloat16` (the network's matrix products; the losses stay float32) or
            `auto`: bfloat16 where the machine has instructions for it.

    Raises:
        UsageError: an option is of the wrong type or out of its range.
    """

    epochs: Count = 20
    batch_size: Annotated[int, Meta(ge=2, le=10**9)] = 64
    learning_rate: Positive = 3e-3
    backbone_learning_rate: Weight = 1e-4
    weight_decay: Weight = 0.05
    schedule: Literal["cosine", "decay"] = "cosine"
    decay: Share = 0.95
    freeze_backbone: bool = True
    freeze_norm: bool = True
    category_weight: Weight = 0.1
    attribute_weight: Weight = 0.3
    triplet_weight: Weight = 0.2
    value_weight: Weight = 1.0
    contrast_weight: Weight = 0.2
    nuance_weight: Weight = 0.5
    nuance_temperature: Positive = 0.07
    margin: Weight = 0.2
    temperature: Positive = 0.1
    sampling: Literal["batch", "triplets"] = "batch"
    triplets_per_epoch: Count = 10000
    triplets: Literal["conditional", "literal"] = "conditional"
    positives: Count = 4
    value_conditions: FromZero = 8
    max_values: Count = 3
    drop_maps: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    crop: Share = 0.75
    flip: bool = True
    copies: FromZero = 5
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def stored_copies(self) -> int:
        """How many copies of each training image are stored: none if the backbone is trained."""
        return self.copies if self.freeze_backbone else 0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on besides its data.

    Args:
        model: architecture.
        recipe: training options.
        preprocessing: image size and mode.
        weights: backbone weights, see `build_backbone`; None starts at random.
        seed: of every draw.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    recipe: Recipe = field(default_factory=Recipe)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    weights: str | None = None
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def options(self) -> dict[str, Any]:
        """All options by name, JSON-ready, but where the weights lie."""
        parts = (self.recipe.to_json(), self.model.to_json(), self.preprocessing.to_json())
        return {name: value for part in parts for name, value in part.items()} | {"seed": self.seed}
