"""Small M2Fashions of every variant, and a condition of every kind."""

import torch

from training.models.config import VARIANTS, ModelConfig, variant
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("pattern", ("floral", "striped", "solid")),
        Attribute("colour", ("red", "blue"), multi=True),
        Attribute("collar", ("round", "v-neckline")),
    )
)
OURS = [n for n, options in VARIANTS.items() if "architecture" not in options]
CONDITIONS = {
    "nothing": SCHEMA.condition(),
    "type": SCHEMA.condition(types=["pattern"]),
    "multi-valued type": SCHEMA.condition(types=["colour"]),
    "values": SCHEMA.condition(present=["floral", "v-neckline"], absent=["blue"]),
    "absent": SCHEMA.condition(absent=["red"]),
}


def variant_model(name: str, dim: int, dtype: torch.dtype) -> M2Fashion:
    torch.manual_seed(5)
    config = variant(name, ModelConfig(backbone="resnet18", stage="layer1", grid=3, dim=dim))
    model = M2Fashion(SCHEMA, config).to(dtype).eval().requires_grad_(False)
    if model.values is not None:
        model.values.bias.normal_()
    return model
