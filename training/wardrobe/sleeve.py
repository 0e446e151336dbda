"""Arms and sleeves: a sleeve is a ribbon about the arm whose width follows its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.wardrobe.curve import Points, bezier, ribbon
from training.wardrobe.outline import half_width
from training.wardrobe.pose import ArmPose

_JOINT = np.array([0.146, 0.232])
_UPPER, _FORE = 0.2, 0.19

REACH = {"sleeveless": 0.0, "short-sleeve": 0.36, "three-quarter-sleeve": 0.66, "long-sleeve": 0.97}
"""Sleeve length -> how far down the arm the sleeve reaches, 1 is the wrist."""


@dataclass(frozen=True)
class Sleeve:
    """One sleeve.

    Args:
        outline: closed, [n, 2].
        line: centre line from the shoulder to the cuff, [m, 2].
        cuff: the two ends of the opening, [2, 2].
        angle: direction of the sleeve, radians from straight down towards positive x.
    """

    outline: Points
    line: Points
    cuff: Points
    angle: float


def arm_line(pose: ArmPose, side: int, reach: float = 1.0, steps: int = 14) -> Points:
    """Centre line of an arm from the shoulder down to `reach` (1 is the wrist), [steps, 2].

    Args:
        pose: of this arm.
        side: -1 the picture's left, 1 its right.
        reach: 0 to 1.
        steps: number of points.
    """
    flip = np.array([side, 1.0])
    elbow = _JOINT + _UPPER * np.array([math.sin(pose.upper), math.cos(pose.upper)])
    wrist = elbow + _FORE * np.array([math.sin(pose.fore), math.cos(pose.fore)])
    # The arc passes the elbow at some distance; a control point beyond it makes up for that.
    control = elbow + 0.35 * (elbow - (_JOINT + wrist) / 2)
    return bezier(_JOINT * flip, control * flip, wrist * flip, reach, steps)


def sleeve(pose: ArmPose, side: int, length: str, shape: str, fit: str) -> Sleeve:
    """The sleeve on one arm.

    Args:
        pose: of this arm.
        side: -1 the picture's left, 1 its right.
        length: a value of sleeve-length other than sleeveless.
        shape: a value of sleeve-shape.
        fit: a value of shape, that says where a batwing meets the side of the torso.
    """
    reach = REACH[length]
    line = arm_line(pose, side, reach)
    width = _width(shape, length, np.linspace(0.0, 1.0, len(line)))
    outline = ribbon(line, width)
    n = len(line)
    cuff = outline[[n - 1, n]]
    if shape == "batwing-sleeve":
        outline, cuff = _batwing(outline, n, side, reach, fit)
    else:
        outline = np.concatenate([outline, _cap(line, float(width[0]))])
    along = line[-1] - line[0]
    return Sleeve(outline, line, cuff, math.atan2(along[0], along[1]))


def _width(shape: str, length: str, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-width at fractions `s` of the sleeve's own length."""
    if shape == "bell-sleeve":
        return np.interp(s, [0, 0.45, 0.75, 1], [0.052, 0.046, 0.078, 0.115])
    if shape == "puff-sleeve" and length == "long-sleeve":
        return np.interp(s, [0, 0.1, 0.28, 0.45, 0.6, 1], [0.04, 0.085, 0.108, 0.085, 0.044, 0.036])
    if shape == "puff-sleeve":
        return np.interp(s, [0, 0.15, 0.5, 0.85, 1], [0.04, 0.085, 0.110, 0.085, 0.040])
    return np.interp(s, [0, 1], [0.054, 0.042])


def _cap(line: Points, width: float) -> Points:
    """Round off the shoulder end, from the last point of the ribbon back to its first."""
    ahead = (line[1] - line[0]) / np.linalg.norm(line[1] - line[0])
    aside = np.array([ahead[1], -ahead[0]])
    angle = np.linspace(0.0, np.pi, 7)[1:-1, None]
    arc: Points = line[0] - width * (np.cos(angle) * aside + 0.8 * np.sin(angle) * ahead)
    return arc


def _batwing(outline: Points, n: int, side: int, reach: float, fit: str) -> tuple[Points, Points]:
    """Replace the edge towards the body by a web from the cuff down to the side of the torso."""
    left, right = outline[:n], outline[n:][::-1]
    near = np.linalg.norm(left - (0.0, 0.6), axis=1) < np.linalg.norm(right - (0.0, 0.6), axis=1)
    outer, inner = (right, left) if near[n // 2] else (left, right)
    y = 0.40 + 0.10 * reach
    foot = np.array([side * (float(half_width(fit, np.array([y]))[0]) - 0.01), y])
    chest = np.array([side * 0.11, 0.3])
    web = 0.5 * (inner[-1] + foot) + np.array([0.0, -0.012])
    edge = np.stack([inner[-1], web, foot, chest])
    return np.concatenate([outer, edge]), np.stack([outer[-1], inner[-1]])
