"""Mirroring, cropping and dropping, on pictures that show where each pixel comes from."""

import pytest
import torch
from torch import Tensor

from training.images.tensors import Augmentation, augment, draw_augmentation, drop_channels


def _drawn(count: int = 4, crop: float = 0.6, flip: bool = True, drop: float = 0.3) -> Augmentation:
    return draw_augmentation(count, 5, flip, crop, drop, torch.Generator().manual_seed(3))


def _ramps(count: int, side: int) -> Tensor:
    """[B, 2, side, side]: the x and the y coordinate of each pixel's centre in -1..1."""
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    both = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])
    return both.expand(count, -1, -1, -1)


def test_a_crop_shows_the_part_of_the_picture_that_was_drawn() -> None:
    """Where a pixel comes from: interpolation of coordinates is exact."""
    drawn, side = _drawn(64), 20
    assert drawn.mirrored.any()
    assert not drawn.mirrored.all()
    assert float(drawn.scale.min()) >= 0.6
    # No crop leaves the picture.
    assert bool((drawn.shift.abs() <= 1 - drawn.scale + 1e-6).all())
    got = augment(_ramps(64, side), drawn)
    line = _ramps(1, side)[0, 0, 0]
    for i in range(64):
        x = float(drawn.scale[i, 0]) * (-line if drawn.mirrored[i] else line)
        y = float(drawn.scale[i, 1]) * line
        edge = float(line[-1])  # beyond the outermost centres there is only the border
        x = (x + float(drawn.shift[i, 0])).clamp(-edge, edge)
        y = (y + float(drawn.shift[i, 1])).clamp(-edge, edge)
        torch.testing.assert_close(got[i, 0], x.expand(side, side), atol=1e-5, rtol=0)
        torch.testing.assert_close(got[i, 1], y[:, None].expand(side, side), atol=1e-5, rtol=0)


def test_without_a_crop_pictures_are_mirrored_exactly_or_left_alone() -> None:
    images = torch.randn(4, 3, 6, 6)
    drawn = _drawn(crop=1.0)
    got = augment(images, drawn)
    for i in range(4):
        assert torch.equal(got[i], images[i].flip(-1) if drawn.mirrored[i] else images[i])
    assert augment(images, _drawn(crop=1.0, flip=False)) is images


@pytest.mark.parametrize("crop", [0.7, 1.0])
def test_a_share_of_the_pictures_is_changed_as_in_the_whole_batch(crop: float) -> None:
    images, drawn = torch.randn(4, 5, 6, 6), _drawn(crop=crop)
    whole = drop_channels(augment(images, drawn), drawn, 0.3)
    for part in (slice(0, 2), slice(2, 4)):
        own = drawn.of(part)
        share = drop_channels(augment(images[part], own), own, 0.3)
        torch.testing.assert_close(share, whole[part])


def test_dropped_channels_are_zero_and_the_mean_stays() -> None:
    drawn = draw_augmentation(200, 50, False, 1.0, 0.3, torch.Generator().manual_seed(0))
    maps = torch.ones(200, 50, 2, 2)
    got = drop_channels(maps, drawn, 0.3)
    assert got.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert bool((got.amax((2, 3)) == got.amin((2, 3))).all())  # a channel as a whole
    assert float(got.mean()) == pytest.approx(1, abs=0.02)
    assert drop_channels(maps, _drawn(drop=0.0), 0.0) is maps
