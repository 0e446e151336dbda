"""How a model is trained: every number of the recipe, with the defaults chosen on `valid`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from training.ranges import Range, check_ranges

_ABOVE_0, _FROM_0, _FROM_1 = Range(0, above=True), Range(0), Range(1)
_RANGES = {
    "epochs": _FROM_1,
    "batch_size": Range(2),
    "learning_rate": _ABOVE_0,
    "backbone_learning_rate": _FROM_0,
    "weight_decay": _FROM_0,
    "decay": Range(0, 1, above=True),
    "category_weight": _FROM_0,
    "attribute_weight": _FROM_0,
    "triplet_weight": _FROM_0,
    "value_weight": _FROM_0,
    "contrast_weight": _FROM_0,
    "nuance_weight": _FROM_0,
    "nuance_temperature": _ABOVE_0,
    "margin": _FROM_0,
    "temperature": _ABOVE_0,
    "smoothing": Range(0, 1),
    "triplets_per_epoch": _FROM_1,
    "positives": _FROM_1,
    "value_conditions": _FROM_0,
    "max_values": _FROM_1,
    "drop_maps": Range(0, 1, below=True),
    "crop": Range(0, 1, above=True),
    "copies": _FROM_0,
}


@dataclass(frozen=True)
class Recipe:
    """Training options.

    Args:
        epochs: passes over the training split.
        batch_size: images in a batch; conditions and triplets are formed among them.
        optimizer: `adamw`, or `sgd` (the paper's).
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
        smoothing: label smoothing of the value loss.
        sampling: `batch` (all conditions of all images of a batch) or `triplets` (triplets drawn
            over the split, three images each, under their attribute's type condition and with the
            hinge loss alone: the way of the methods compared with).
        triplets_per_epoch: with `triplets`, how many are an epoch; `batch_size` are a batch.
        mask_labels: show the masked-label heads some of an image's labels; otherwise none.
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
        UsageError: a number is out of its range.
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    backbone_learning_rate: float = 1e-4
    weight_decay: float = 0.05
    schedule: Literal["cosine", "decay"] = "cosine"
    decay: float = 0.95
    freeze_backbone: bool = True
    freeze_norm: bool = True
    category_weight: float = 0.1
    attribute_weight: float = 0.3
    triplet_weight: float = 0.2
    value_weight: float = 1.0
    contrast_weight: float = 0.2
    nuance_weight: float = 0.5
    nuance_temperature: float = 0.07
    margin: float = 0.2
    temperature: float = 0.1
    smoothing: float = 0.0
    sampling: Literal["batch", "triplets"] = "batch"
    triplets_per_epoch: int = 10000
    mask_labels: bool = True
    triplets: Literal["conditional", "literal"] = "conditional"
    positives: int = 4
    value_conditions: int = 8
    max_values: int = 3
    drop_maps: float = 0.2
    crop: float = 0.75
    flip: bool = True
    copies: int = 5
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)

    @property
    def stored_copies(self) -> int:
        """How many copies of each training image are stored: none if the backbone is trained."""
        return self.copies if self.freeze_backbone else 0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)
