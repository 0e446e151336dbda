"""A query picture after the expensive half of the model: all that any condition needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.conditioned import ConditionedEmbedder
from training.models.folded_head import FoldedHead
from training.schema import Condition


@dataclass(frozen=True)
class Picture:
    """One encoded picture.

    Args:
        maps: I [1, d, H, W] on the model's device.
        keys: P, likewise.
        chances: the model's probability of every value, [K] float32.
    """

    maps: Tensor
    keys: Tensor
    chances: NDArray[np.float32]

    def embed(
        self, model: ConditionedEmbedder, conditions: Sequence[Condition]
    ) -> NDArray[np.float32]:
        """Z under several conditions, unit vectors [C, d] float32."""
        states = torch.from_numpy(np.stack(conditions)).float().unsqueeze(0).to(self.maps.device)
        with torch.inference_mode():
            z = model.readout(model.attend_raw(self.maps, states, self.keys), states)[0]
        vectors: NDArray[np.float32] = z.float().cpu().numpy()
        return vectors


def embed_folded(head: FoldedHead, picture: Picture) -> NDArray[np.float32]:
    """Z [d] of a picture under the condition of a folded head, in a few small operations: for a
    GPU. `picture_head.py` does the same on a CPU, faster."""
    with torch.inference_mode():
        cells, attention = picture.maps[0].flatten(1), head.attention  # I [d, L]
        if attention.query is None:
            alpha = cells.new_full((cells.shape[1],), 1 / cells.shape[1])
        else:
            logits = attention.query @ picture.keys[0].flatten(1)  # P_l . u
            alpha = (logits.tanh() if attention.squash else logits).softmax(0)
        if attention.pooling == "max":
            attended = (cells * (alpha * len(alpha))).amax(1)
        else:
            attended = cells @ alpha
        z = head.tail(attended.unsqueeze(0), torch.empty_like(attended).unsqueeze(0))[0]
    vector: NDArray[np.float32] = z.float().cpu().numpy()
    return vector


def encode_pictures(model: ConditionedEmbedder, images: Tensor) -> list[Picture]:
    """Encode normalised images [B, 3, S, S] on the model's device."""
    with torch.inference_mode():
        maps = model.features(images)
        keys = model.keys(maps)
        return pictures_of(model, maps, keys)


def pictures_of(model: ConditionedEmbedder, maps: Tensor, keys: Tensor) -> list[Picture]:
    """Pictures whose maps and keys [B, d, H, W] are at hand, such as stored ones."""
    with torch.inference_mode():
        chances = model.predict(maps, keys).float().cpu().numpy()
    return [Picture(maps[n : n + 1], keys[n : n + 1], chances[n]) for n in range(len(maps))]
