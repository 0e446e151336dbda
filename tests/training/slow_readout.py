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
    """The embedding of one image under one condition; `weights` are a `ValueReadout`'s."""
    prototypes = [unit(row) for row in weights["prototypes"].tolist()]
    axes, bias = weights["axes"].tolist(), weights["bias"].tolist()
    scale = math.exp(float(weights["log_scale"]))
    z = unit(z)
    dim = len(z)
    values = [
        [k for k, owner in enumerate(schema.attribute_of) if owner == number]
        for number in range(len(schema.attributes))
    ]
    named = [n for n, ks in enumerate(values) if any(states[k] != 0 for k in ks)]
    if not named:
        return z
    known = [0.0] * dim
    for number in named:
        logits = {k: scale * _dot(z, prototypes[k]) + bias[k] for k in values[number]}
        if schema.attributes[number].multi:
            chances = {k: 1 / (1 + math.exp(-s)) for k, s in logits.items()}
        else:
            chances = {k: math.exp(s) for k, s in logits.items()}
        for k, chance in chances.items():
            share = chance / sum(chances.values()) / math.sqrt(len(named))
            known = [a + share * b for a, b in zip(known, axes[k], strict=True)]
    doubt = 0.7 * math.sqrt(max(0.0, 1 - _dot(known, known)))
    rows = weights["frequencies"].tolist()
    own = [math.cos(_dot(row, z)) for row in rows] + [math.sin(_dot(row, z)) for row in rows]
    own += [0.0] * (dim - len(own))
    own = [doubt * b / math.sqrt(len(rows)) + 0.2 * c for b, c in zip(own, z, strict=True)]
    for number in named:
        along = {k: _dot(own, axes[k]) for k in values[number]}
        own = [v - sum(along[k] * axes[k][i] for k in along) for i, v in enumerate(own)]
    return unit([a + b for a, b in zip(known, own, strict=True)])


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
