"""The light on a finished picture, and the noise of the camera."""

from __future__ import annotations

import numpy as np
from PIL import Image

from training.wardrobe.scene import Light


def lit(image: Image.Image, light: Light) -> Image.Image:
    """The RGB picture under a light: brightness, its slope, colour cast and noise."""
    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    gain = light.gain * (1 + light.slope[0] * x + light.slope[1] * y)
    pixels = (pixels * gain * np.array(light.cast)).astype(np.float32)
    if light.noise > 0:
        rng = np.random.default_rng(light.seed)
        pixels += np.float32(light.noise) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
