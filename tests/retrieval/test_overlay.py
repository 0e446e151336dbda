"""The overlay is where the attention is, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.sheet import STRIDES, overlay, peak, receptive_offset, smooth, strength
from training.models.backbones import build_backbone


def grey(size: tuple[int, int] = (140, 140), level: int = 120) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def change(picture: Image.Image, covered: Image.Image) -> np.ndarray:
    one, two = (np.asarray(p, dtype=float) for p in (picture, covered))
    return np.abs(one - two).sum(-1)


@pytest.mark.parametrize("cell", [(0, 0), (3, 3), (6, 2), (1, 6)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_the_brightest_change_is_in_the_hot_cell(cell: tuple[int, int], level: int) -> None:
    alpha = np.full((7, 7), 0.001)
    alpha[cell] = 1.0
    picture = grey(level=level)
    changed = change(picture, overlay(picture, alpha))
    means = changed.reshape(7, 20, 7, 20).mean((1, 3))
    assert np.unravel_index(means.argmax(), means.shape) == cell
    far = np.ones((7, 7), dtype=bool)
    far[max(0, cell[0] - 1) : cell[0] + 2, max(0, cell[1] - 1) : cell[1] + 2] = False
    assert means[far].max() < 0.03 * means.max()  # the rest of the picture stays as it is


def test_the_middle_of_the_change_is_the_centre_of_the_cell_less_the_offset() -> None:
    alpha = np.zeros((5, 5))
    alpha[2, 3] = 1
    for offset in (0.0, 0.06):
        changed = change(grey((100, 100)), overlay(grey((100, 100)), alpha, offset))
        y, x = np.indices(changed.shape) + 0.5
        middle = [(changed * at).sum() / changed.sum() / 100 for at in (y, x)]
        assert middle == pytest.approx([0.5 - offset, 0.7 - offset], abs=0.005)


@pytest.mark.parametrize("alpha", [np.full((4, 4), 1 / 16), np.zeros((4, 4)), np.ones((1, 1))])
def test_even_attention_changes_nothing(alpha: np.ndarray) -> None:
    assert not change(grey(), overlay(grey(), alpha)).any()


def test_the_picture_shows_through() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
    alpha = np.random.default_rng(1).random((7, 7))
    covered = np.asarray(overlay(Image.fromarray(pixels), alpha)).astype(float)
    for channel in range(3):
        assert np.corrcoef(covered[..., channel].ravel(), pixels[..., channel].ravel())[0, 1] > 0.5


def test_strength_and_peak() -> None:
    alpha = np.array([[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_allclose(strength(alpha), [[0, 0], [1 / 3, 1]], atol=1e-12)
    assert peak(alpha) == pytest.approx(1.6)
    assert smooth(strength(alpha), (31, 17)).shape == (17, 31)


@pytest.mark.parametrize(("name", "stage"), [("resnet18", "layer2"), ("small", "layer3")])
def test_a_cell_looks_where_the_offset_says(name: str, stage: str) -> None:
    """The middle of what the output of one cell depends on, by the size of the gradients."""
    torch.manual_seed(0)
    side, stride = 160, STRIDES[stage]
    network = build_backbone(name, stage, None).eval()
    seen = torch.zeros(side, side)
    for _ in range(6):
        image = torch.randn(1, 3, side, side, requires_grad=True)
        out = network(image)
        assert out.shape[-1] == side // stride
        middle = side // stride // 2
        out[0, :, middle, middle].pow(2).sum().backward()
        seen += image.grad[0].pow(2).sum(0)
    y, x = torch.meshgrid(*[torch.arange(side) + 0.5] * 2, indexing="ij")
    found = [float((seen * at).sum() / seen.sum()) / side for at in (y, x)]
    expected = (middle + 0.5) * stride / side - receptive_offset(stride, side)
    assert found == pytest.approx([expected, expected], abs=1.5 / side)
