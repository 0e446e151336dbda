"""All architectures by name; a new one is a file and a line here (and its name in the config)."""

from __future__ import annotations

from training.models.config import ModelConfig
from training.models.embedder import ConditionedEmbedder
from training.models.m2fashion import M2Fashion
from training.models.rivals.asen import ASEN
from training.models.rivals.asenet_v2 import ASENetV2
from training.models.rivals.csn import CSN
from training.models.rivals.triplet import TripletNetwork
from training.schema import Schema

ARCHITECTURES: dict[str, type[ConditionedEmbedder]] = {
    "m2fashion": M2Fashion,
    "triplet": TripletNetwork,
    "csn": CSN,
    "asen": ASEN,
    "asenet-v2": ASENetV2,
}
"""`ModelConfig.architecture` -> class."""


def build_model(
    schema: Schema, config: ModelConfig, categories: int = 0, weights: str | None = None
) -> ConditionedEmbedder:
    """A new model of `config.architecture`, its layers random.

    Args and errors are those of `ConditionedEmbedder` and `build_backbone`.
    """
    return ARCHITECTURES[config.architecture](schema, config, categories, weights)
