"""A catalogue of coloured squares and rimmed discs that a small model learns in seconds."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 210)}
SHAPES = ("disc", "square")


def write_tiny_catalogue(folder: Path, count: int = 90, seed: int = 0) -> Path:
    """Write `count` pictures of 64 px with `colour`, `shape` and `category` labels."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["image", "split", "colour", "shape", "category"])
        for i in range(count):
            colour, shape = list(COLOURS)[i % 3], SHAPES[(i // 3) % 2]
            ground = tuple(int(v) for v in rng.integers(90, 200, 3))
            picture = Image.new("RGB", (64, 64), ground)
            draw = ImageDraw.Draw(picture)
            x, y, r = (int(v) for v in rng.integers([10, 10, 12], [30, 30, 22]))
            box = (x, y, x + 2 * r, y + 2 * r)
            if shape == "disc":  # with a bright rim: a few layers at 32 px see no curvature
                draw.ellipse(box, COLOURS[colour], "white", 5)
            else:
                draw.rectangle(box, COLOURS[colour])
            name = f"images/{i:03d}.png"
            picture.save(folder / name)
            split = "train" if i < count * 2 // 3 else "valid" if i < count * 5 // 6 else "test"
            rows.writerow([name, split, colour, shape, "round" if shape == "disc" else "angular"])
    return folder
