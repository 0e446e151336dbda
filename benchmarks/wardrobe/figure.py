"""The geometry of one dressed figure, in figure units: what `render` draws and locates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.wardrobe.draw import Points, bezier, mirrored, points, ribbon, rounded
from benchmarks.wardrobe.garment import Garment


@dataclass(frozen=True)
class ArmPose:
    """Directions of upper arm and forearm, radians from straight down, positive outwards."""

    upper: float
    fore: float


@dataclass(frozen=True)
class Pose:
    """Where and how the figure stands.

    `scale` is its size relative to the frame, about 0.9 to 1.05, `shift` x and y in frame widths,
    `rotation` radians, positive clockwise in the picture, `shear` the x gained per y.
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


NECK_X, NECK_Y = 0.058, 0.165
SHOULDER_X, SHOULDER_Y = 0.178, 0.205
ARMPIT_Y, WAIST_Y = 0.31, 0.45

HEM_Y = {
    "cropped": 0.43,
    "hip-length": 0.565,
    "thigh-length": 0.685,
    "knee-length": 0.805,
    "ankle-length": 0.92,
}
"""Length -> y of the hem, figure units."""

_SIDE_Y = (ARMPIT_Y, WAIST_Y, 0.58, 0.81, 0.95)
_SIDES = {
    "slim-fit": (0.150, 0.118, 0.152, 0.135, 0.125),
    "straight-fit": (0.160, 0.162, 0.170, 0.176, 0.180),
    "a-line": (0.146, 0.192, 0.262, 0.345, 0.385),
    "loose-fit": (0.202, 0.224, 0.222, 0.206, 0.196),
}
"""Shape -> half-width of the garment at `_SIDE_Y`."""

_NECKLINES = {
    "round-neckline": ("arc", 0.088, 0.075),
    "v-neckline": ("v", 0.090, 0.165),
    "shirt-collar": ("v", 0.066, 0.065),
    "turtleneck": ("arc", 0.058, 0.012),
    "hood": ("arc", 0.078, 0.055),
    "lapel-collar": ("v", 0.078, 0.215),
    "square-neckline": ("square", 0.098, 0.100),
    "boat-neckline": ("arc", 0.146, 0.030),
}
"""Collar shape -> form, half-width at the shoulder seam, depth below it."""


def half_width(shape: str, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-width of a garment of `shape` at heights `y` [n] at or below the armpit, [n]."""
    return np.interp(y, _SIDE_Y, _SIDES[shape])


def neckline(collar: str) -> Points:
    """The edge of the neck opening, [n, 2] from left to right."""
    form, half, depth = _NECKLINES[collar]
    top = NECK_Y + (half - NECK_X) / (SHOULDER_X - NECK_X) * (SHOULDER_Y - NECK_Y)
    if form == "v":
        return points((-half, top), (0.0, top + depth), (half, top))
    if form == "square":
        low = top + depth
        return points((-half, top), (-0.93 * half, low), (0.93 * half, low), (half, top))
    angle = np.linspace(0.0, np.pi, 13)
    return np.column_stack([-half * np.cos(angle), top + depth * np.sin(angle)])


def torso(shape: str, length: str, collar: str, tails: bool) -> Points:
    """The closed outline of the garment without sleeves and collar, [n, 2].

    With `tails` the hem is cut in shirt tails, lower at front than at the sides.
    """
    hem = HEM_Y[length]
    y = np.linspace(ARMPIT_Y, hem, 9)
    side = np.column_stack([half_width(shape, y), y])
    half = float(side[-1, 0])
    x = np.linspace(half, -half, 27)[1:-1]
    sag = 0.018 * (1 - (x / half) ** 2)
    if tails:
        # High at the sides, so that the tails show at any length.
        sag = 0.045 * np.cos(np.pi * (np.abs(x) / half) ** 1.5)
        side[-1, 1] -= 0.045
    elif shape == "a-line":
        sag = sag + 0.011 * np.cos(np.pi * 5 * x / half)  # a flared hem falls in waves
    bottom = np.column_stack([x, hem + sag])
    shoulder = points((SHOULDER_X, SHOULDER_Y), (0.165, 0.26))
    right = np.concatenate([shoulder, side])
    left = (right * np.array([-1.0, 1.0]))[::-1]
    return np.concatenate([neckline(collar), right, bottom, left])


_JOINT = np.array([0.146, 0.232])
_UPPER, _FORE = 0.2, 0.19

REACH = {"sleeveless": 0.0, "short-sleeve": 0.36, "three-quarter-sleeve": 0.66, "long-sleeve": 0.97}
"""Sleeve length -> how far down the arm the sleeve reaches, 1 is the wrist."""


@dataclass(frozen=True)
class Sleeve:
    """A closed outline [n, 2], the centre line from shoulder to cuff [m, 2], both ends of the
    opening [2, 2] and the direction, radians from straight down towards positive x."""

    outline: Points
    line: Points
    cuff: Points
    angle: float


def arm_line(pose: ArmPose, side: int, reach: float = 1.0, steps: int = 14) -> Points:
    """Centre line of an arm from the shoulder down to `reach` (1 is the wrist), [steps, 2].

    `side` is -1 for the picture's left, 1 for its right.
    """
    flip = np.array([side, 1.0])
    elbow = _JOINT + _UPPER * np.array([math.sin(pose.upper), math.cos(pose.upper)])
    wrist = elbow + _FORE * np.array([math.sin(pose.fore), math.cos(pose.fore)])
    # The arc passes the elbow at some distance; a control point beyond it makes up for that.
    control = elbow + 0.35 * (elbow - (_JOINT + wrist) / 2)
    return bezier(_JOINT * flip, control * flip, wrist * flip, reach, steps)


def sleeve(pose: ArmPose, side: int, length: str, shape: str, fit: str) -> Sleeve:
    """The sleeve on one arm, `side` as of `arm_line`; not of a sleeveless garment.

    `length` and `shape` are the sleeve's; `fit`, the garment's shape, says where a batwing meets
    the side of the torso.
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


def _collars() -> dict[str, tuple[Points, ...]]:
    tube = points((-0.062, 0.115), (0.062, 0.115), (0.074, 0.182), (0.0, 0.198), (-0.074, 0.182))
    leaf = points((0.062, 0.150), (0.0, 0.222), (0.062, 0.288), (0.122, 0.196))
    lapel = points(
        (0.07, 0.15), (0.128, 0.205), (0.108, 0.248), (0.152, 0.252), (0.12, 0.318), (0.0, 0.395)
    )
    inner = points((0.070, 0.140), (0.060, 0.190), (0.0, 0.222))
    outer = points((0.0, 0.268), (0.105, 0.235), (0.132, 0.180), (0.110, 0.120))
    sides = {"shirt-collar": leaf, "lapel-collar": lapel, "hood": np.concatenate([inner, outer])}
    return {"turtleneck": (tube,)} | {name: (mirrored(one), one) for name, one in sides.items()}


_COLLARS = _collars()
"""Collar shape -> closed outlines back to front; plain necklines have none."""


def hood_back() -> Points:
    """The hood behind the head, closed."""
    half = points((0.0, -0.062), (0.105, -0.05), (0.142, 0.05), (0.122, 0.15), (0.135, 0.22))
    return rounded(np.concatenate([half, mirrored(half)[::-1]]))


@dataclass(frozen=True)
class Layout:
    """Where everything of a garment is.

    Args:
        torso: closed outline without sleeves and collar, [n, 2].
        neckline: edge of the neck opening from left to right, [m, 2].
        collar: pieces that lie on top, closed outlines, back to front.
        hood: the hood behind the head, closed; None without one.
        sleeves: left and right; empty if sleeveless.
        arms: centre lines of the left and right arm, shoulder to wrist.
        hem: y of the hem.
        opening: y of the lowest point of the neckline, where a row of buttons begins.
    """

    torso: Points
    neckline: Points
    collar: tuple[Points, ...]
    hood: Points | None
    sleeves: tuple[Sleeve, ...]
    arms: tuple[Points, Points]
    hem: float
    opening: float


def lay_out(garment: Garment, pose: Pose) -> Layout:
    """Work out the geometry of a garment on a wearer in a pose."""
    edge = neckline(garment.collar_shape)
    left, right = pose.left, pose.right
    if garment.has_sleeves and garment.sleeve_shape == "batwing-sleeve":
        left, right = _spread(left), _spread(right)
    cut = garment.sleeve_length, garment.sleeve_shape, garment.shape
    tails = garment.category == "shirt"
    return Layout(
        torso=torso(garment.shape, garment.length, garment.collar_shape, tails),
        neckline=edge,
        collar=_COLLARS.get(garment.collar_shape, ()),
        hood=hood_back() if garment.collar_shape == "hood" else None,
        sleeves=(sleeve(left, -1, *cut), sleeve(right, 1, *cut)) if garment.has_sleeves else (),
        arms=(arm_line(left, -1), arm_line(right, 1)),
        hem=HEM_Y[garment.length],
        opening=float(edge[:, 1].max()),
    )


def _spread(arm: ArmPose) -> ArmPose:
    """Hold an arm away from the body: the web of a batwing keeps it there, and shows only then."""
    return ArmPose(max(arm.upper, 0.72), max(arm.fore, 0.1) if arm.upper < 1.2 else arm.fore)
