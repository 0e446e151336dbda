"""The value readout written out loop by loop, in Python floats."""

import math
from collections.abc import Mapping

from torch import Tensor

from training.schema import Schema


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def slow_readout(
    weights: Mapping[str, Tensor], schema: Schema, z: list[float], states: list[float]
) -> list[float]:
    """The embedding of one image under one condition, [K]; `weights` are a `ValueReadout`'s."""
    prototypes = [unit(row) for row in weights["prototypes"].tolist()]
    scale, bias = math.exp(float(weights["log_scale"])), weights["bias"].tolist()
    z = unit(z)
    values = [
        [k for k, owner in enumerate(schema.attribute_of) if owner == number]
        for number in range(len(schema.attributes))
    ]
    named = [n for n, ks in enumerate(values) if any(states[k] != 0 for k in ks)]
    out = [0.0] * schema.size
    for number in named:
        logits = {
            k: scale * sum(a * b for a, b in zip(z, prototypes[k], strict=True)) + bias[k]
            for k in values[number]
        }
        if schema.attributes[number].multi:
            chances = {k: 1 / (1 + math.exp(-s)) for k, s in logits.items()}
        else:
            chances = {k: math.exp(s) for k, s in logits.items()}
        for k, chance in chances.items():
            out[k] = chance / sum(chances.values()) / math.sqrt(len(named))
    return out
