"""What a model is made of: every choice of MODEL.md as a named option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from training.errors import UsageError

T = TypeVar("T")
Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet50v2", "small"]
Architecture = Literal["m2fashion", "triplet", "csn", "asen", "asenet-v2"]
Stage = Literal["layer1", "layer2", "layer3", "layer4"]


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one model; the defaults are MODEL.md's settled form.

    `embedding`, `spatial`, `pooling`, `channel` and `readout` are M2Fashion's; others ignore them.

    Args:
        backbone: the convolutional network.
        stage: its last stage that is kept.
        grid: the backbone's output is average-pooled to grid x grid cells.
        dim: d, the length of the embedding and, in M2Fashion, the channels of the feature map
            (asenet-v2: always the channels of F).
        embedding: `tables` (separate tables for +1 and -1, averaged over their counts, plus a
            bias, then tanh) or `paper` (Eq. 1, 6: tanh(W A)).
        spatial: `temperature` (logits scaled by a learned temperature), `tanh` (Eq. 3 to the
            letter) or `none` (w/o ASA: V_s = GMP(I)).
        pooling: `max` (GMP) or `mean` (GAP, which is Eq. 5) over the weighted map.
        channel: `relu` or `sigmoid` (Eq. 7 to the letter) inside ACA, or `none` (w/o ACA: Z = V_s).
        readout: `prototypes` (Z is moved towards the prototypes of likely values) or `none`.
        lower_stages: F also holds the pixels and the stages below `stage`, see `lower_stages.py`.
        architecture: the model; `training.models.registry` has its class.
    """

    backbone: Backbone = "resnet50"
    stage: Stage = "layer3"
    grid: int = 7
    dim: int = 512
    embedding: Literal["tables", "paper"] = "tables"
    spatial: Literal["temperature", "tanh", "none"] = "temperature"
    pooling: Literal["max", "mean"] = "max"
    channel: Literal["relu", "sigmoid", "none"] = "relu"
    readout: Literal["prototypes", "none"] = "prototypes"
    lower_stages: bool = True
    architecture: Architecture = "m2fashion"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict of all options."""
        return asdict(self)


VARIANTS: dict[str, dict[str, Any]] = {
    "m2fashion": {},
    "paper": {
        "embedding": "paper",
        "spatial": "tanh",
        "pooling": "max",
        "channel": "sigmoid",
        "readout": "none",
        "lower_stages": False,
    },
    "without-asa": {"spatial": "none"},
    "without-aca": {"channel": "none"},
    "gap": {"pooling": "mean"},
    "without-readout": {"readout": "none"},
    "without-lower-stages": {"lower_stages": False},
    "triplet": {"architecture": "triplet", "dim": 1024, "lower_stages": False},
    "csn": {"architecture": "csn", "dim": 1024, "lower_stages": False},
    "asen": {"architecture": "asen", "dim": 1024, "lower_stages": False},
    "asenet-v2": {"architecture": "asenet-v2", "lower_stages": False},
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
        UsageError: an unknown option or a value of the wrong type; the message names it.
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
    return kind(**data)
