"""Landmarks of garments in what a model sees: brought into its square, and moved with its views.

Landmarks here are [N, L, 3] float32: x and y in 0..1 of the side, from the left and from the top,
and a state: `VISIBLE`, `OCCLUDED`, `CUT_OFF` (it lies outside) or `NONE` (nothing is known of it).
Slots stand in pairs, the left one, then the right one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.datasets.dataset import Dataset
from training.images.preprocessing import Preprocessing
from training.images.tensors import Augmentation

NONE, VISIBLE, OCCLUDED, CUT_OFF = -1, 0, 1, 2


def in_square(
    dataset: Dataset, rows: NDArray[np.int64], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Landmarks of some rows in the square that a preprocessing makes of their pictures, [M, L, 3].

    Reads the head of every file for its size, as it is stored: nothing is known of the landmarks of
    a picture that has none.
    """
    assert dataset.landmarks is not None, "checked before"
    own = dataset.landmarks[rows]
    sizes = np.array([_size(dataset, int(row)) for row in rows], np.float64).reshape(-1, 1, 2)
    places = preprocessing.places(own[..., 1:].astype(np.float64), np.maximum(sizes, 1))
    known = ~np.isnan(own).any(-1) & (sizes[..., 0] > 0)
    return _stated(places, np.where(known, own[..., 0], NONE)).numpy()


def moved(landmarks: Tensor, drawn: Augmentation) -> Tensor:
    """Where landmarks [B, L, 3] lie once `augment` has mirrored and cropped the pictures.

    Left and right change places in a mirror; what a crop leaves outside is cut off.
    """
    scale, shift = drawn.scale.to(landmarks)[:, None], drawn.shift.to(landmarks)[:, None]
    mirrored = drawn.mirrored.to(landmarks.device)[:, None]
    there = (2 * landmarks[..., :2] - 1 - shift) / scale  # -1..1 of the crop
    x = torch.where(mirrored, -there[..., 0], there[..., 0])
    out = _stated((torch.stack([x, there[..., 1]], -1) + 1) / 2, landmarks[..., 2])
    other = torch.arange(landmarks.shape[1], device=landmarks.device) ^ 1  # of the pair
    return torch.where(mirrored[..., None], out[:, other], out)


def _stated(places: NDArray[np.float64] | Tensor, states: NDArray[np.float32] | Tensor) -> Tensor:
    """Places [N, L, 2], 0 where nothing is known of them, and states [N, L] side by side."""
    xy, state = torch.as_tensor(places).float(), torch.as_tensor(states).float()
    known = state != NONE
    outside = ((xy < 0) | (xy > 1)).any(-1)
    state = torch.where(known & outside, CUT_OFF, state)
    return torch.cat([torch.where(known[..., None], xy.clamp(0, 1), 0), state[..., None]], -1)


def _size(dataset: Dataset, row: int) -> tuple[int, int]:
    """Width and height of a picture in pixels; 0, 0 if it cannot be read."""
    try:
        with Image.open(dataset.root / dataset.paths[row]) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0
