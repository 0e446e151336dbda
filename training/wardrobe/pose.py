"""How the wearer stands: the affine map from the figure to the picture, and the arms.

The figure lives in *figure units*: x from -0.5 to 0.5 about its axis, y from 0 at the top of a
square frame to 1 at the bottom. Its left arm is the picture's left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.wardrobe.curve import Points


@dataclass(frozen=True)
class ArmPose:
    """Directions of upper arm and forearm, radians from straight down, positive outwards."""

    upper: float
    fore: float


@dataclass(frozen=True)
class Pose:
    """Where and how the figure stands.

    Args:
        scale: size relative to the frame, about 0.9 to 1.05.
        shift: x and y, in frame widths.
        rotation: radians, positive clockwise in the picture.
        shear: x gained per y.
        left, right: the arms.
    """

    scale: float
    shift: tuple[float, float]
    rotation: float
    shear: float
    left: ArmPose
    right: ArmPose

    def matrix(self) -> Points:
        """Affine map [2, 3] from figure units to picture widths, both 0..1 and y down."""
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        linear = self.scale * np.array([[c, -s], [s, c]]) @ np.array([[1.0, self.shear], [0, 1]])
        # The figure turns about its middle (0, 0.5), which lands in the middle of the frame.
        offset = np.array([0.5, 0.5]) + np.array(self.shift) - linear @ np.array([0.0, 0.5])
        return np.column_stack([linear, offset])


NEUTRAL = Pose(0.97, (0.0, 0.0), 0.0, 0.0, ArmPose(0.35, 0.2), ArmPose(0.35, 0.2))
"""Upright, arms a little away from the body: for figures in documents and tests."""


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose in which every part of the longest garment stays in the frame."""
    return Pose(
        scale=float(rng.uniform(0.9, 1.05)),
        shift=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.025, 0.01))),
        rotation=float(np.clip(rng.normal(0.0, 0.06), -0.12, 0.12)),
        shear=float(rng.uniform(-0.08, 0.08)),
        left=_sample_arm(rng),
        right=_sample_arm(rng),
    )


def _sample_arm(rng: np.random.Generator) -> ArmPose:
    kind = rng.random()
    first, second = rng.random(2)
    if kind < 0.62:  # hanging
        upper = 0.24 + 0.34 * first
        return ArmPose(float(upper), float(upper - 0.4 * second))
    if kind < 0.86:  # hand on hip
        return ArmPose(float(0.7 + 0.25 * first), float(-0.5 + 0.35 * second))
    return ArmPose(float(1.75 + 0.4 * first), float(2.5 + 0.6 * second))  # raised
