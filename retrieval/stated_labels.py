"""Labels of an image as a person states them: `colour=red`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.errors import UsageError
from training.schema import Condition, Schema


def stated_labels(schema: Schema, given: Sequence[str]) -> Condition:
    """Label states from statements, and what follows: an attribute's other values are absent.

    Args:
        schema: the index's.
        given: statements `attribute=value`; an attribute with several values may stand more often.

    Returns:
        [K] int8; 0 for attributes of which nothing is stated.

    Raises:
        UsageError: an unknown attribute or value (with the nearest names), no `=`, or two values
            of an attribute of which an image has only one.
    """
    names = []
    for text in given:
        attribute, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--labels {text!r} is not of the form attribute=value")
        number = schema.attribute(attribute)
        names.append(f"{schema.attributes[number].name}:{value.strip()}")
    stated = schema.condition(present=names)
    for number in np.unique(schema.attribute_of[stated == 1]).tolist():
        where = schema.slice_of(number)
        stated[where] = np.where(stated[where] == 1, 1, -1)
    return stated
