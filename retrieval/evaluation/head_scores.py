"""What a model's two heads say of stored maps under label conditions, one an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.map_bank import MapBank


@dataclass(frozen=True)
class HeadScores:
    """Logits of the heads on Z before normalisation.

    Args:
        attributes: of every value [M, K].
        categories: of every category [M, C]; None if the model has no category head.
    """

    attributes: NDArray[np.float32]
    categories: NDArray[np.float32] | None


def head_scores(bank: MapBank, conditions: NDArray[np.int8], chunk: int = 256) -> HeadScores:
    """Run both heads over a bank as multi-task training does: known labels in, all labels out.

    Args:
        bank: maps of M images.
        conditions: what is known of each image, label states [M, K]; zeros: nothing.
        chunk: images at a time.
    """
    model = bank.model
    device = next(model.parameters()).device
    attributes = np.empty(conditions.shape, dtype=np.float32)
    head = model.category_head
    categories = None
    if head is not None:
        categories = np.empty((len(conditions), head.out_features), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(conditions), chunk):
            part = slice(start, start + chunk)
            states = torch.from_numpy(conditions[part]).float().unsqueeze(1).to(device)
            maps = bank.maps[part].to(device).float()
            keys = bank.keys[part].to(device).float()
            z = model.attend_raw(maps, states, keys).squeeze(1)
            attributes[part] = model.attribute_head(z).cpu().numpy()
            if head is not None and categories is not None:
                categories[part] = head(z).cpu().numpy()
    return HeadScores(attributes, categories)
