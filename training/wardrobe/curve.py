"""Curves as point lists: rounding corners, Bezier arcs, and ribbons about a centre line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""Points [n, 2] float64, x then y, in figure units unless said otherwise."""


def points(*xy: tuple[float, float]) -> Points:
    """Points [n, 2] from pairs."""
    return np.array(xy, dtype=np.float64)


def mirrored(line: Points) -> Points:
    """The same points on the other side of the figure's axis, in the same order."""
    flipped: Points = line * np.array([-1.0, 1.0])
    return flipped


def rounded(line: Points, times: int = 2) -> Points:
    """Cut the corners of a closed polygon `times` times (Chaikin): [n, 2] to [n * 2**times, 2]."""
    for _ in range(times):
        following = np.roll(line, -1, axis=0)
        line = np.stack([0.75 * line + 0.25 * following, 0.25 * line + 0.75 * following], axis=1)
        line = line.reshape(-1, 2)
    return line


def bezier(start: Points, control: Points, end: Points, stop: float, steps: int) -> Points:
    """A quadratic arc from its start to parameter `stop` (0 to 1), [steps, 2]."""
    t = np.linspace(0.0, stop, steps)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def normals(line: Points) -> Points:
    """Unit normals [n, 2] of an open line, to the left of its direction with y down."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return np.column_stack([along[:, 1], -along[:, 0]])


def ribbon(line: Points, width: NDArray[np.float64]) -> Points:
    """The closed outline [2 n, 2] of an open line with half-width `width` [n] at each point."""
    offset = normals(line) * width[:, None]
    return np.concatenate([line + offset, (line - offset)[::-1]])


def oval(centre: tuple[float, float], radii: tuple[float, float], steps: int = 24) -> Points:
    """An ellipse as a polygon [steps, 2]."""
    angle = np.linspace(0.0, 2 * np.pi, steps, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    ellipse: Points = circle * np.array(radii) + np.array(centre)
    return ellipse
