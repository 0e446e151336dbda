"""What a model is made of: every choice of MODEL.md as a named option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from training.errors import UsageError
from training.ranges import Range, check_ranges

T = TypeVar("T")
Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet50v2", "small"]
Architecture = Literal["m2fashion", "triplet", "csn", "asen", "asenet-v2"]
Stage = Literal["layer1", "layer2", "layer3", "layer4"]
_RANGES = {
    "grid": Range(1, 64),
    "dim": Range(2, 16_384),
    "nuance": Range(0, 1024),
    "garment_nuance": Range(0, 1024),
}


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one model; the defaults are MODEL.md's settled form.

    `embedding`, `spatial`, `pooling` and `channel` are M2Fashion's; others ignore them.

    Args:
        backbone: the convolutional network.
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
        architecture: the model; `training.models.registry` has its class.

    Raises:
        UsageError: `grid` is not 1..64, or `dim` not 2..16384.
    """

    backbone: Backbone = "resnet50"
    stage: Stage = "layer3"
    grid: int = 7
    dim: int = 512
    embedding: Literal["tables", "paper"] = "tables"
    spatial: Literal["temperature", "tanh", "none"] = "temperature"
    pooling: Literal["max", "mean"] = "mean"
    channel: Literal["relu", "sigmoid", "none"] = "relu"
    readout: Literal["values", "none"] = "values"
    lower_stages: bool = True
    nuance: int = 16
    garment_nuance: int = 176
    architecture: Architecture = "m2fashion"

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)


_PLAIN = {"readout": "none", "lower_stages": False, "nuance": 0, "garment_nuance": 0}
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
    "triplet": _PLAIN | {"architecture": "triplet", "dim": 1024},
    "csn": _PLAIN | {"architecture": "csn", "dim": 1024},
    "asen": _PLAIN | {"architecture": "asen", "dim": 1024},
    "asenet-v2": _PLAIN | {"architecture": "asenet-v2"},
}
"""Named variants: the options in which each differs from the default."""


def variant(name: str, base: ModelConfig) -> ModelConfig:
    """`base` with the options of a named variant.

    Raises:
        UsageError: if there is no such variant.
    """
    if name not in VARIANTS:
        raise UsageError(f"unknown model variant {name!r}; there are {', '.join(VARIANTS)}")
    # A variant that names no architecture is one of M2Fashion, whatever `base` is.
    return replace(base, **({"architecture": "m2fashion"} | VARIANTS[name]))


def from_mapping(kind: type[T], data: Mapping[str, Any], where: str) -> T:
    """Build a flat config dataclass from a mapping, checking every name, type and choice.

    Args:
        kind: a dataclass whose fields are int, float, bool, str or Literal.
        data: option names and values.
        where: what is being read, for the message.

    Raises:
        UsageError: an unknown option, a value of the wrong type or out of its range; the message
            names it.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise UsageError(f"{where}: unknown option {unknown[0]!r}; there are {', '.join(names)}")
    for name, value in data.items():
        hint = hints[name]
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                choices = ", ".join(map(str, get_args(hint)))
                raise UsageError(f"{where}: {name} = {value!r} is none of {choices}")
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            continue
        elif not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
            raise UsageError(f"{where}: {name} = {value!r} is not of type {hint.__name__}")
    try:
        return kind(**data)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
