"""The pieces of a collar that lie on top of the torso, by collar shape."""

from __future__ import annotations

import numpy as np

from training.wardrobe.curve import Points, mirrored, points, rounded


def collar_pieces(collar: str) -> tuple[Points, ...]:
    """Closed outlines back to front; none for plain necklines."""
    if collar == "turtleneck":
        tube = points(
            (-0.062, 0.115), (0.062, 0.115), (0.074, 0.182), (0.0, 0.198), (-0.074, 0.182)
        )
        return (tube,)
    if collar == "shirt-collar":
        leaf = points((0.062, 0.150), (0.0, 0.222), (0.062, 0.288), (0.122, 0.196))
        return mirrored(leaf), leaf
    if collar == "lapel-collar":
        lapel = points(
            (0.070, 0.150),
            (0.128, 0.205),
            (0.108, 0.248),
            (0.152, 0.252),
            (0.120, 0.318),
            (0.0, 0.395),
        )
        return mirrored(lapel), lapel
    if collar == "hood":
        inner = points((0.070, 0.140), (0.060, 0.190), (0.0, 0.222))
        outer = points((0.0, 0.268), (0.105, 0.235), (0.132, 0.180), (0.110, 0.120))
        roll = np.concatenate([inner, outer])
        return mirrored(roll), roll
    return ()


def hood_back() -> Points:
    """The hood behind the head, closed."""
    half = points((0.0, -0.062), (0.105, -0.05), (0.142, 0.05), (0.122, 0.15), (0.135, 0.22))
    return rounded(np.concatenate([half, mirrored(half)[::-1]]))
