"""The attention report against averages and a bootstrap written out."""

import numpy as np
import pytest

from retrieval.evaluation.attention import LOCATED_BELOW, attention_report
from training.errors import UsageError


@pytest.fixture
def shares():
    rng = np.random.default_rng(0)
    inside, others = rng.random((30, 3)), rng.random((30, 3))
    area = rng.random((30, 3)) * (0.1, 0.2, 0.5) + 0.01
    inside[4:9, 1] = np.nan
    return inside, area, others, np.repeat(np.arange(10), 3)


def test_means_ratios_and_intervals(shares):
    inside, area, others, groups = shares
    report = attention_report(("a", "b", "c"), inside, area, others, groups, seed=5)
    drawn = np.random.default_rng(5).integers(0, 10, size=(1000, 10))
    every = [np.concatenate([np.flatnonzero(groups == g) for g in row]) for row in drawn]
    samples = np.empty((1000, 3))
    for n, row in enumerate(report.rows):
        rows = np.flatnonzero(~np.isnan(inside[:, n]))
        mean, chance = inside[rows, n].mean(), area[rows, n].mean()
        assert (row.inside, row.area, row.ratio) == pytest.approx((mean, chance, mean / chance))
        assert row.others == pytest.approx(others[rows, n].mean())
        assert row.images == len(rows)
        assert row.located == (chance < LOCATED_BELOW)
        for r, members in enumerate(every):
            kept = members[np.isin(members, rows)]
            samples[r, n] = inside[kept, n].mean() / area[kept, n].mean()
        low, high = np.quantile(samples[:, n], [0.025, 0.975])
        assert (row.ratio_ci.low, row.ratio_ci.high) == pytest.approx((low, high))
    assert [row.located for row in report.rows] == [True, True, False]
    located, first, second = report.located, *report.rows[:2]
    assert located is not None
    assert located.inside == pytest.approx((first.inside + second.inside) / 2)
    assert located.ratio == pytest.approx((first.ratio + second.ratio) / 2)
    assert located.area == pytest.approx((first.area + second.area) / 2)
    low, high = np.quantile(samples[:, :2].mean(axis=1), [0.025, 0.975])
    assert (located.ratio_ci.low, located.ratio_ci.high) == pytest.approx((low, high))


def test_what_is_located_does_not_depend_on_the_attention(shares):
    inside, area, others, groups = shares
    found = [
        [r.located for r in attention_report("abc", i, area, others, groups).rows]
        for i in (inside, inside * 0, inside**0.1)
    ]
    assert found[0] == found[1] == found[2]
    whole = attention_report("abc", inside, area * 0 + 0.4, others, groups)
    assert whole.located is None


def test_an_attribute_that_no_picture_has_is_named(shares):
    inside, area, others, groups = shares
    inside[:, 2] = np.nan
    with pytest.raises(UsageError, match="labelled in c;"):
        attention_report("abc", inside, area, others, groups)
