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
    values = []
    for text in given:
        attribute, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--labels {text!r} is not of the form attribute=value")
        values.append(schema.value_of(attribute, value))
    stated = schema.value_condition(values)
    for number in np.unique(schema.attribute_of[stated == 1]).tolist():
        where = schema.slice_of(number)
        if stated[where].sum() > 1 and not schema.multi[number]:
            name, said = schema.attributes[number].name, ", ".join(given)
            raise UsageError(f"--labels {said}: an image has only one value of {name!r}")
        stated[where] = np.where(stated[where] == 1, 1, -1)
    return stated
