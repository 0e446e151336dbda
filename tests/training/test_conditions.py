import numpy as np
import torch

from training.sampling import fits, mask_labels, sample_value_conditions
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("a", ("x", "y", "z", "w")),
        Attribute("b", ("p", "q")),
        Attribute("c", ("r", "s", "t")),
        Attribute("d", ("u", "v")),
    )
)


def _labels(count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    states = np.zeros((count, SCHEMA.size), dtype=np.float32)
    for i in range(count):
        for number in range(4):
            where = SCHEMA.slice_of(number)
            states[i, where] = -1
            states[i, where.start + rng.integers(where.stop - where.start)] = 1
    return torch.from_numpy(states)


def test_masks_hide_a_quarter_to_all_and_change_nothing_else() -> None:
    labels = _labels(4000)
    shown = mask_labels(labels, SCHEMA, torch.Generator().manual_seed(0))
    assert bool(((shown == labels) | (shown == 0)).all())
    hidden = (shown == 0).float().mean(1)
    assert float(hidden.min()) >= 0.18  # by groups a quarter of the attributes may be the small one
    assert float(hidden.max()) == 1
    assert 0.55 < float(hidden.mean()) < 0.75  # uniform in [0.25, 1], rounded up


def test_half_of_the_masks_hide_whole_attributes() -> None:
    labels = _labels(4000)
    shown = mask_labels(labels, SCHEMA, torch.Generator().manual_seed(1))
    whole = torch.ones(4000, dtype=torch.bool)
    for number in range(4):
        own = shown[:, SCHEMA.slice_of(number)] == 0
        whole &= own.all(1) | ~own.any(1)
    assert 0.5 <= float(whole.float().mean()) < 0.75


def test_masks_repeat_with_their_generator() -> None:
    labels = _labels(50)
    first, again, other = (
        mask_labels(labels, SCHEMA, torch.Generator().manual_seed(s)) for s in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_value_conditions_name_one_value_of_each_attribute_and_somebody_fits() -> None:
    labels = _labels(64)
    drawn = sample_value_conditions(labels, SCHEMA, 300, torch.Generator().manual_seed(0))
    assert drawn.shape == (300, SCHEMA.size)
    counts = (drawn == 1).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    for number in range(4):
        assert int((drawn[:, SCHEMA.slice_of(number)] == 1).sum(1).max()) == 1
    assert bool((fits(labels, drawn) == 1).any(0).all())
    unwanted = (drawn == -1).any(1).float().mean()
    assert 0.08 < float(unwanted) < 0.25


def test_fits_by_loops() -> None:
    labels = _labels(30)
    labels[torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) < 0.3] = 0
    conditions = sample_value_conditions(labels, SCHEMA, 40, torch.Generator().manual_seed(2))
    got = fits(labels, conditions)
    for i in range(30):
        for m in range(len(conditions)):
            named = [k for k in range(SCHEMA.size) if conditions[m, k]]
            if any(labels[i, k] == -conditions[m, k] for k in named):
                expected = 0
            elif all(labels[i, k] == conditions[m, k] for k in named):
                expected = 1
            else:
                expected = -1
            assert int(got[i, m]) == expected


def test_no_positive_labels_give_no_conditions() -> None:
    drawn = sample_value_conditions(torch.zeros(4, SCHEMA.size), SCHEMA, 5, torch.Generator())
    assert drawn.shape == (0, SCHEMA.size)
    assert fits(torch.zeros(4, SCHEMA.size), drawn).shape == (4, 0)
