"""A picture in the making: figure units in, antialiased pixels out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

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


Grid = NDArray[np.float32]
"""Coordinates or brightness per pixel, [h, w] float32."""

Ink = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Cloth = Callable[[Grid, Grid], NDArray[np.float32]]
"""Places across and along a part [h, w] -> colours [h, w, 3] float32, 0 to 255."""

SUPERSAMPLE = 2


def ink(colour: NDArray[np.floating], factor: float = 1.0) -> Ink:
    """A colour [3] as a tuple, `factor` times as bright."""
    red, green, blue = np.clip(np.asarray(colour) * factor, 0, 255).astype(int).tolist()
    return red, green, blue


class Canvas:
    """Draws upon an RGB backdrop of twice the final size; `finish` scales down.

    `matrix` is the affine map [2, 3] from figure units to picture widths, see `Pose.matrix`.
    """

    def __init__(self, backdrop: Image.Image, matrix: Points) -> None:
        self.image = backdrop
        self.scale = backdrop.width
        self._matrix = matrix * self.scale
        self._draw = ImageDraw.Draw(self.image)
        # Line widths shrink with the figure.
        self._unit = float(np.sqrt(abs(np.linalg.det(self._matrix[:, :2]))))
        self._inverse = np.linalg.inv(self._matrix[:, :2])

    def pixels(self, line: Points) -> Points:
        """Figure units [n, 2] to pixels of the large canvas [n, 2]."""
        return line @ self._matrix[:, :2].T + self._matrix[:, 2]

    def polygon(self, outline: Points, colour: Ink) -> None:
        """Fill a closed outline."""
        self._draw.polygon(self.pixels(outline).ravel().tolist(), fill=colour)

    def line(self, line: Points, colour: Ink, width: float, closed: bool = False) -> None:
        """Draw a line of a width in figure units, at least one pixel of the large canvas."""
        xy = self.pixels(np.concatenate([line, line[:1]]) if closed else line)
        pixels = max(1, round(width * self._unit))
        self._draw.line(xy.ravel().tolist(), fill=colour, width=pixels, joint="curve")

    def disc(self, centre: tuple[float, float], radius: float, colour: Ink) -> None:
        """Fill a circle."""
        x, y = self.pixels(np.array([centre]))[0]
        r = max(1.0, radius * self._unit)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def cloth(self, outline: Points, cloth: Cloth, origin: Points, angle: float) -> None:
        """Fill a closed outline with cloth whose coordinates are both 0 at `origin` [2] and whose
        threads run along `angle`, radians from straight down towards positive x."""
        xy = self.pixels(outline)
        left, top = np.floor(np.maximum(xy.min(axis=0), 0)).astype(int)
        right, bottom = np.ceil(np.minimum(xy.max(axis=0) + 1, self.scale)).astype(int)
        if right <= left or bottom <= top:
            return
        stencil = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(stencil).polygon((xy - (left, top)).ravel().tolist(), fill=255)
        x = (np.arange(left, right, dtype=np.float32) + 0.5 - self._matrix[0, 2])[None, :]
        y = (np.arange(top, bottom, dtype=np.float32) + 0.5 - self._matrix[1, 2])[:, None]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        places = (turn @ self._inverse).astype(np.float32)
        start = (turn @ origin).astype(np.float32)
        x, y = x.astype(np.float32), y.astype(np.float32)
        across = places[0, 0] * x + places[0, 1] * y - start[0]
        along = places[1, 0] * x + places[1, 1] * y - start[1]
        colours = np.clip(cloth(across, along), 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(colours), (int(left), int(top)), stencil)

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(SUPERSAMPLE)
