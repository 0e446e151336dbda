"""What a model is made of: every choice of MODEL.md as a named option; and all models by name."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from training.descriptor import GARMENT, DescriptorLayout
from training.errors import UsageError
from training.validated import check_fields

if TYPE_CHECKING:
    from training.models.embedder import ConditionedEmbedder
    from training.schema import Schema

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet50v2", "small")

TIMM = "timm:"
"""How the names of backbones begin that timm has."""

Stage = Literal["layer1", "layer2", "layer3", "layer4"]

Freeze = Literal["none", "stem", "all"]
"""How much of a backbone is kept as loaded: the stem is all below its last stage."""

_Numbers = Annotated[int, Meta(ge=0, le=1024)]

ARCHITECTURES = {
    "m2fashion": "training.models.m2fashion:M2Fashion",
    "triplet": "training.models.rivals.triplet:TripletNetwork",
    "csn": "training.models.rivals.csn:CSN",
    "asen": "training.models.rivals.asen:ASEN",
    "asenet-v2": "training.models.rivals.asenet_v2:ASENetV2",
    "wtbi": "training.models.rivals.wtbi:WTBI",
    "darn": "training.models.rivals.darn:DARN",
    "fashionnet": "training.models.rivals.fashionnet:FashionNet",
    "corbiere": "training.models.rivals.corbiere:Corbiere",
    "attentive": "training.models.rivals.attentive:Attentive",
    "upsampling": "training.models.rivals.upsampling:Upsampling",
    "asenpp": "training.models.rivals.asenpp:ASENpp",
    "rpf": "training.models.rivals.rpf:RPF",
    "agman": "training.models.rivals.agman:AGMAN",
    "cca": "training.models.rivals.cca:CCA",
}
"""Name of a model -> `module:class`. A new model is its file and a line here."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one model; the defaults are MODEL.md's settled form.

    `embedding`, `spatial`, `pooling` and `channel` are M2Fashion's; others ignore them.

    Args:
        backbone: the network that sees pictures: one of `BACKBONES`, or `timm:NAME`.
        stage: its last stage that is kept.
        grid: the backbone's output is average-pooled to grid x grid cells.
        dim: d, the length of the embedding and, in M2Fashion, the channels of the feature map
            (asenet-v2: always the channels of F).
        embedding: `tables` (separate tables for +1 and -1, averaged over their counts, plus a
            bias, then tanh) or `paper` (Eq. 1, 6: tanh(W A)).
        spatial: `temperature` (logits scaled by a learned temperature), `tanh` (Eq. 3 to the
            letter) or `none` (w/o ASA: V_s is the pooled I).
        pooling: `mean` (GAP, which is the sum of Eq. 5) or `max` (GMP) over the weighted map.
        channel: `relu` or `sigmoid` (Eq. 7 to the letter) inside ACA, or `none` (w/o ACA: Z = V_s).
        readout: `values` (an embedding is the chances of the values that the condition speaks of,
            see `ValueReadout`) or `none` (it is Z).
        nuance: numbers of each attribute's nuance, see `nuance.py`; 0: none.
        garment_nuance: numbers of the whole garment's nuance; 0: none.
        lower_stages: F also holds the pixels and the stages below `stage`.
        architecture: the model, of `ARCHITECTURES`.

    Raises:
        UsageError: an option is of the wrong type or out of its range.
    """

    backbone: str = "resnet50"
    stage: Stage = "layer3"
    grid: Annotated[int, Meta(ge=1, le=64)] = 7
    dim: Annotated[int, Meta(ge=2, le=16_384)] = 512
    embedding: Literal["tables", "paper"] = "tables"
    spatial: Literal["temperature", "tanh", "none"] = "temperature"
    pooling: Literal["max", "mean"] = "mean"
    channel: Literal["relu", "sigmoid", "none"] = "relu"
    readout: Literal["values", "none"] = "values"
    lower_stages: bool = True
    nuance: _Numbers = 16
    garment_nuance: _Numbers = 176
    architecture: str = "m2fashion"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.backbone not in BACKBONES and not self.backbone.startswith(TIMM):
            known = ", ".join(BACKBONES)
            raise UsageError(f"backbone = {self.backbone!r} is none of {known}, {TIMM}NAME")
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UsageError(f"architecture = {self.architecture!r} is none of {known}")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)


_PLAIN: dict[str, Any] = {
    "readout": "none",
    "lower_stages": False,
    "nuance": 0,
    "garment_nuance": 0,
}
"""Without what is not in any of the papers."""

VARIANTS: dict[str, dict[str, Any]] = {
    "m2fashion": {},
    "paper": _PLAIN
    | {"embedding": "paper", "spatial": "tanh", "pooling": "max", "channel": "sigmoid"},
    "without-asa": {"spatial": "none"},
    "without-aca": {"channel": "none"},
    "gmp": {"pooling": "max"},
    "without-readout": {"readout": "none"},
    "without-lower-stages": {"lower_stages": False},
    "without-nuance": {"nuance": 0, "garment_nuance": 0},
}
"""Named variants of M2Fashion: the options in which each differs from the default."""


def variant(name: str, base: ModelConfig) -> ModelConfig:
    """`base` with the options of a variant of M2Fashion, or of another of `ARCHITECTURES`.

    Raises:
        UsageError: if there is no such name.
    """
    if name in VARIANTS:  # also where `base` is none of M2Fashion
        return replace(base, **({"architecture": "m2fashion"} | VARIANTS[name]))
    if name in ARCHITECTURES:
        return replace(base, **(_PLAIN | {"architecture": name, "dim": 1024}))
    known = ", ".join(VARIANTS | ARCHITECTURES)
    raise UsageError(f"unknown model variant {name!r}; there are {known}")


def layout_of(config: ModelConfig, schema: Schema) -> DescriptorLayout:
    """What the bytes of a model's descriptors are."""
    groups = []
    if config.nuance:
        groups += [(number, config.nuance) for number in range(len(schema.attributes))]
    if config.garment_nuance:
        groups.append((GARMENT, config.garment_nuance))
    return DescriptorLayout(schema.size, tuple(groups))


def model_class(name: str) -> type[ConditionedEmbedder]:
    """The class of a name of `ARCHITECTURES`."""
    module, _, kind = ARCHITECTURES[name].partition(":")
    found: type[ConditionedEmbedder] = getattr(importlib.import_module(module), kind)
    return found


def build_model(
    schema: Schema, config: ModelConfig, categories: int = 0, weights: str | None = None
) -> ConditionedEmbedder:
    """A new model of `config.architecture`, its layers random.

    Args and errors are those of `ConditionedEmbedder` and `build_backbone`.
    """
    return model_class(config.architecture)(schema, config, categories, weights)
