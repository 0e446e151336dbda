"""One rule to RGB for a picture of any Pillow mode."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB.

    =============================  ================================================================
    mode                           rule
    =============================  ================================================================
    RGB, RGBX                      as it is; the fourth byte of RGBX is padding
    RGBA, RGBa, LA, La, PA         laid over white; a fully transparent picture is white
    P                              its palette; transparent entries are laid over white
    1, L                           the grey in all three channels; 1 is black and white
    1, L, I, I;16, RGB with a      the colour that is declared transparent becomes white
    transparent colour
    I;16 and its byte orders       0..65535 divided by 257 and rounded: the full range, not the
                                   picture's own
    I                              clipped to 0..65535, then as I;16
    F                              0..1, or 0..255 if any value is above 1; clipped; not finite is 0
    CMYK                           Pillow's plain conversion (255 - C) (255 - K) / 255; the inverted
                                   CMYK of Adobe's JPEGs is turned round when it is decoded
    YCbCr, HSV                     Pillow's conversion (JFIF; hue 0..255)
    LAB                            to sRGB through littleCMS, D50
    =============================  ================================================================

    Colour profiles are not applied: photographs of shops are sRGB or meant to be, and a result that
    depends on whether a profile survived the last upload would be worse.

    Args:
        image: decoded, any size.

    Returns:
        A picture of mode RGB and the same size; `image` itself if there is nothing to do.

    Raises:
        ValueError: if Pillow cannot convert the mode (none of those above).
    """
    if image.mode.startswith("I"):
        return _from_wide(image)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 1.0 if grey.max() > 1 else 255.0
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")  # Pillow goes no further in one step
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer)  # the pixels of alpha_composite in a third of its memory
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.int32)
    transparent = image.info.get("transparency")
    white = wide == transparent if isinstance(transparent, int) else None
    np.clip(wide, 0, 65535, out=wide)
    wide += 128  # round(x / 257); 257 is odd, so that no tie arises
    wide //= 257
    grey = wide.astype(np.uint8)
    if white is not None:
        grey[white] = 255
    return Image.fromarray(grey).convert("RGB")
