"""How a model is trained: every number of the recipe, with the defaults chosen on `valid`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import TIMM, Freeze, ModelConfig
from training.validated import Count, FromZero, Positive, Share, Weight, check_fields


@dataclass(frozen=True)
class Recipe:
    """Training options.

    Raises:
        UsageError: an option is of the wrong type or out of its range.
    """

    epochs: Count = 20  # passes over the training split
    # images in a batch; conditions and triplets are formed among them
    batch_size: Annotated[int, Meta(ge=2, le=10**9)] = 64
    learning_rate: Positive = 3e-3  # of the new layers, at its peak
    backbone_learning_rate: Weight = 1e-4  # of the backbone, when it is trained
    weight_decay: Weight = 0.05  # of AdamW
    # `cosine` to zero with a short warm-up, or `decay` (a factor each epoch)
    schedule: Literal["cosine", "decay"] = "cosine"
    decay: Share = 0.95  # that factor
    # epochs without a better one by `valid` after which a run ends; 0: it never ends early
    patience: FromZero = 0
    # how much of the backbone is kept as loaded, so that its maps are computed once: `all` of it,
    # the `stem`, which is all but its last stage, or `none`
    freeze: Freeze = "all"
    # keep the batch norms of the backbone in inference mode while all of it is trained; with `stem`
    # they always are
    freeze_norm: bool = True
    category_weight: Weight = 0.1  # of the category loss (Eq. 10)
    attribute_weight: Weight = 0.3  # lambda of Eq. 15, masked attribute loss
    triplet_weight: Weight = 0.2  # gamma of Eq. 15
    # of the cross-entropy of each attribute's values under its type condition
    value_weight: Weight = 1.0
    contrast_weight: Weight = 0.2  # of the supervised contrastive loss
    # of the contrastive loss on nuance; with it, half of a batch are partners of the other half:
    # another picture of the same item, else another copy of the picture
    nuance_weight: Weight = 0.5
    nuance_temperature: Positive = 0.07  # of that loss
    margin: Weight = 0.2  # m of Eq. 14
    temperature: Positive = 0.1  # of the contrastive loss
    # `batch` (all conditions of all images of a batch) or `triplets` (triplets drawn over the
    # split, three images each, under their attribute's type condition and with the hinge loss
    # alone: the way of the methods compared with)
    sampling: Literal["batch", "triplets"] = "batch"
    # with `triplets`, how many are an epoch; `batch_size` are a batch
    triplets_per_epoch: Count = 10000
    # `conditional` (ASEN) or `literal` (share any value, share none)
    triplets: Literal["conditional", "literal"] = "conditional"
    positives: Count = 4  # positives drawn for each anchor and condition
    value_conditions: FromZero = 8  # value conditions drawn for each batch, single and combined
    max_values: Count = 3  # most values in one condition
    # dropout on the channels of the feature map, 0 to below 1
    drop_maps: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    crop: Share = 0.75  # images are cropped at random to at least this share of each side
    flip: bool = True  # mirror images at random
    # with a frozen backbone or stem, how many copies of each training image, mirrored and cropped
    # at random, have their maps stored beside its own; every time it is shown one of them or itself
    # is drawn. With 0 the image's own map is mirrored and cropped, which a stem's cannot be
    copies: FromZero = 5
    # `float32`, `bfloat16` (the network's matrix products; the losses stay float32) or `auto`:
    # bfloat16 where the machine has instructions for it
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.freeze == "stem" and self.copies == 0 and (self.flip or self.crop < 1):
            raise UsageError(
                "freeze = 'stem' with copies = 0: maps of a stem cannot be mirrored and cropped; "
                "store copies, or set flip = false and crop = 1"
            )

    @property
    def stored_copies(self) -> int:
        """How many copies of each training image are stored: none if all is trained."""
        return 0 if self.freeze == "none" else self.copies

    @property
    def teaches(self) -> bool:
        """Whether any term has a weight; else there are the model's own losses alone."""
        terms = ("category", "attribute", "triplet", "value", "contrast", "nuance")
        return any(getattr(self, f"{term}_weight") for term in terms)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on besides its data."""

    model: ModelConfig = field(default_factory=ModelConfig)  # architecture
    recipe: Recipe = field(default_factory=Recipe)  # training options
    preprocessing: Preprocessing = field(default_factory=Preprocessing)  # image size and mode
    weights: str | None = None  # backbone weights, see `build_backbone`; None starts at random
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0  # of every draw

    def __post_init__(self) -> None:
        check_fields(self)
        if self.recipe.freeze == "stem":
            if self.model.backbone.startswith(TIMM):
                raise UsageError(
                    f"freeze = 'stem': {self.model.backbone} cannot be run in two pieces; "
                    "freeze all or none of it"
                )
            if self.model.stage == "layer1":
                raise UsageError("freeze = 'stem': there is no stage below layer1")

    def options(self) -> dict[str, Any]:
        """All options by name, JSON-ready, but where the weights lie."""
        parts = (self.recipe.to_json(), self.model.to_json(), self.preprocessing.to_json())
        return {name: value for part in parts for name, value in part.items()} | {"seed": self.seed}
