"""From a picture to the square of bytes that a model takes, by Pillow and numpy alone.

A checkpoint carries its own settings. Training, building and querying all come through here; what
follows, normalisation, is the model's first layer (`training/images/tensors.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, cast

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

from training.errors import DataError, UsageError
from training.images.read import PictureSource, decode_rgb, open_picture
from training.validated import check_fields, validated

Mode = Literal["pad", "stretch", "crop"]
_Mean = Annotated[float, Meta(ge=-100, le=100)]
_Deviation = Annotated[float, Meta(gt=0, le=100)]

_REDUCING_GAP = 3.0  # Pillow: "nearly indistinguishable" from a plain resize, and faster


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a square of numbers; raises UsageError for a value out of its range."""

    size: Annotated[int, Meta(ge=1, le=4096)] = 224  # S, side of the square in pixels
    # `pad` shows the whole picture, undistorted, on a ground of the mean colour; `stretch` shows it
    # whole and distorted; `crop` takes the central square
    mode: Mode = "pad"
    # mean of each channel, of values 0..1 (default: ImageNet)
    mean: tuple[_Mean, _Mean, _Mean] = (0.485, 0.456, 0.406)
    # standard deviation of each channel, above 0
    std: tuple[_Deviation, _Deviation, _Deviation] = (0.229, 0.224, 0.225)
    # R, side to which that square is brought before its middle, S x S, is cut out; 0 cuts nothing.
    # Training crops at random, which makes garments larger than they are in whole pictures; 256 of
    # 224 shows them about as large (Touvron et al., 2019)
    resize: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize and not self.size <= self.resize <= 4096:
            raise UsageError(f"resize must be 0 or {self.size}..4096, got {self.resize}")

    @property
    def side(self) -> int:
        """Side of the square that the picture is brought to, in pixels: R, or S."""
        return self.resize or self.size

    @property
    def whole(self) -> Preprocessing:
        """The same without the cut: of what training crops itself."""
        return replace(self, resize=0)

    def open(self, source: PictureSource) -> NDArray[np.uint8]:
        """Read and fit a picture, uint8 [3, S, S]; raises as `open_picture` does."""
        return self.fit(open_picture(source, draft=self.side))

    def decode(self, content: bytes, name: str) -> NDArray[np.uint8]:
        """Decode and fit the bytes of an image file, uint8 [3, S, S]; raises DataError."""
        return self.fit(decode_rgb(content, name, draft=self.side))

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Bring an RGB picture of any size to uint8 [3, S, S], by antialiased bilinear scaling."""
        width, height = image.size
        square = (self.side, self.side)
        if self.mode == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            # Cropped before it is scaled: 1 x 10000 must not become 224 x 2,240,000.
            fitted = _resize(image, square, (left, top, left + side, top + side))
        elif self.mode == "stretch" or width == height:
            fitted = _resize(image, square)
        else:
            scale = self.side / max(width, height)
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            ground = tuple(round(255 * min(max(m, 0.0), 1.0)) for m in self.mean)
            fitted = Image.new("RGB", square, cast(tuple[int, int, int], ground))
            corner = ((self.side - inner[0]) // 2, (self.side - inner[1]) // 2)
            fitted.paste(_resize(image, inner), corner)
        if self.resize:
            edge = (self.resize - self.size) // 2
            fitted = fitted.crop((edge, edge, edge + self.size, edge + self.size))
        # Channel by channel as Pillow packs it: ten times faster than to turn an array round.
        planes = bytearray().join([fitted.tobytes("raw", channel) for channel in "RGB"])
        return np.frombuffer(planes, np.uint8).reshape(3, self.size, self.size)

    def places(
        self, points: NDArray[np.float64], sizes: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Where `fit` brings points, [N, L, 2] x and y in pixels of pictures of width and height
        `sizes` [N, 1, 2], at least 1: in 0..1 of the square's side; outside, what is cut away."""
        if self.mode == "stretch":
            shares = points / sizes
        else:
            longer = self.mode == "pad"
            side = sizes.max(-1, keepdims=True) if longer else sizes.min(-1, keepdims=True)
            shares = (points - (sizes - side) / 2) / side
        edge = (self.side - self.size) // 2
        moved: NDArray[np.float64] = (shares * self.side - edge) / self.size
        return moved

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_json` reads it back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: Any) -> Preprocessing:
        """Read what `to_json` wrote; raises DataError."""
        if isinstance(data, dict):  # none may be missing, though each has a default
            data = dict.fromkeys(("size", "mode", "mean", "std")) | data
        return validated(cls, data, "not a preprocessing", DataError)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _resize(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=_REDUCING_GAP)
