"""DeepFashion's landmarks, brought into eight slots that mean the same for every garment.

Slots: 0 left collar, 1 right collar, 2 left sleeve, 3 right sleeve, 4 left waistline, 5 right
waistline, 6 left hem, 7 right hem. The files list them packed: an upper-body garment has collars,
sleeves and hems, a lower-body one waistlines and hems, a full-body one all eight.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.deepfashion_lists import numbers_of, read_by_path
from training.datasets.label_lines import bad_line, whole_number

SLOTS_OF_TYPE = {1: (0, 1, 2, 3, 6, 7), 2: (4, 5, 6, 7), 3: (0, 1, 2, 3, 4, 5, 6, 7)}
"""Clothes type (1 upper, 2 lower, 3 full) -> slots in the order of the file."""


def read_landmarks(file: Path, row_of: Mapping[str, int]) -> NDArray[np.float32]:
    """Read `list_landmarks.txt`: path, clothes type, then `visibility x y` for each landmark.

    Returns:
        [N, 8, 3] float32, visibility (0 visible, 1 occluded, 2 cut off), x and y in pixels; NaN in
        the slots that a garment does not have.

    Raises:
        DataError: an unknown clothes type, or another number of landmarks than its type has.
    """
    out = np.full((len(row_of), 8, 3), np.nan, dtype=np.float32)
    sizes = tuple(1 + 3 * len(slots) for slots in SLOTS_OF_TYPE.values())
    for row, line, text, (kind, *fields) in read_by_path(file, row_of, sizes):
        slots = SLOTS_OF_TYPE.get(whole_number(kind) or 0)
        if slots is None or len(fields) != 3 * len(slots):
            raise bad_line(
                file, line, text, "a clothes type 1, 2 or 3 with 6, 4 or 8 'visibility x y'"
            )
        out[row, slots] = np.reshape(numbers_of(file, line, text, fields), (-1, 3))
    return out
