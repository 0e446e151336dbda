"""The geometry of one dressed figure, in figure units: drawn by `render`, located by `regions`."""

from __future__ import annotations

from dataclasses import dataclass

from training.wardrobe.collar import collar_pieces, hood_back
from training.wardrobe.curve import Points
from training.wardrobe.garment import Garment
from training.wardrobe.outline import HEM_Y, neckline, torso
from training.wardrobe.pose import ArmPose, Pose
from training.wardrobe.sleeve import Sleeve, arm_line, sleeve


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
    sleeves: tuple[Sleeve, ...] = ()
    if garment.has_sleeves:
        length, shape, fit = garment.sleeve_length, garment.sleeve_shape, garment.shape
        sleeves = (
            sleeve(left, -1, length, shape, fit),
            sleeve(right, 1, length, shape, fit),
        )
    tails = garment.category == "shirt"
    return Layout(
        torso=torso(garment.shape, garment.length, garment.collar_shape, tails),
        neckline=edge,
        collar=collar_pieces(garment.collar_shape),
        hood=hood_back() if garment.collar_shape == "hood" else None,
        sleeves=sleeves,
        arms=(arm_line(left, -1), arm_line(right, 1)),
        hem=HEM_Y[garment.length],
        opening=float(edge[:, 1].max()),
    )


def _spread(arm: ArmPose) -> ArmPose:
    """Hold an arm away from the body: the web of a batwing keeps it there, and shows only then."""
    return ArmPose(max(arm.upper, 0.72), max(arm.fore, 0.1) if arm.upper < 1.2 else arm.fore)
