"""What one picture shows, as a function of (seed, index) alone: any picture can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.wardrobe.garment import Garment, sample_garment
from training.wardrobe.pose import NEUTRAL, Pose, sample_pose
from training.wardrobe.scene import PLAIN, Scene, sample_scene

_ITEM_SIZES = (1, 2, 1, 3)
"""Pictures of successive items, over and over."""

_FIRST = tuple(int(x) for x in np.cumsum((0, *_ITEM_SIZES)))
_BLOCK = 10  # items a block, of which 8 train, 1 valid, 1 test
_GARMENT, _PICTURE, _SPLIT = 1, 2, 3  # streams of random numbers that must not overlap


@dataclass(frozen=True)
class Spec:
    """A garment, how it is worn, and where."""

    garment: Garment
    pose: Pose = NEUTRAL
    scene: Scene = PLAIN


def item_of(index: int) -> tuple[int, int]:
    """Number of the item that picture `index` shows, and which of its pictures this is."""
    rounds, rest = divmod(index, _FIRST[-1])
    within = int(np.searchsorted(_FIRST, rest, side="right")) - 1
    return rounds * len(_ITEM_SIZES) + within, rest - _FIRST[within]


def split_of(seed: int, item: int) -> str:
    """`train`, `valid` or `test`, 8:1:1 in every ten items, so that no item straddles a split."""
    block, within = divmod(item, _BLOCK)
    place = np.random.default_rng([seed, _SPLIT, block]).permutation(_BLOCK)[within]
    return "valid" if place == 0 else "test" if place == 1 else "train"


def sample_spec(seed: int, index: int) -> Spec:
    """Draw what picture `index` of the wardrobe `seed` shows.

    Args:
        seed: of the whole wardrobe, 0 or more.
        index: of the picture, 0 or more. Pictures of one item share the garment only.
    """
    item, _ = item_of(index)
    garment = sample_garment(np.random.default_rng([seed, _GARMENT, item]))
    rng = np.random.default_rng([seed, _PICTURE, index])
    return Spec(garment, sample_pose(rng), sample_scene(rng, garment.category))
