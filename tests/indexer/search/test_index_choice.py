"""How an index is searched, by its size, the recall and the user's word."""

from __future__ import annotations

import pytest

from indexer.search.choose import choose_factory, lists_of
from training.errors import UsageError


@pytest.mark.parametrize(
    ("rows", "factory"),
    [(1, "flat"), (999_999, "flat"), (1_000_000, "IVF4096"), (10_000_000, "IVF4096")],
)
def test_the_size_decides(rows: int, factory: str) -> None:
    assert choose_factory(rows, 0.98) == factory
    assert choose_factory(rows, 1) == "flat"  # an exact search reads every descriptor
    assert lists_of(factory) == (0 if factory == "flat" else 4096)


@pytest.mark.parametrize(("asked", "factory"), [("Flat", "flat"), ("ivf8", "IVF8")])
def test_a_factory_string_overrides(asked: str, factory: str) -> None:
    assert choose_factory(100, 0.98, asked) == factory
    assert choose_factory(10**7, 0.98, asked) == factory


@pytest.mark.parametrize(
    "factory",
    ["", "foo", "IVF0", "IVF-4", "IVF8,Flat", "PQ8x4fs", "IVF101", "IVF" + "9" * 5000, "日本"],
)  # fmt: skip
def test_wrong_factory_strings_are_named(factory: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_factory(100, 0.98, factory)
    assert repr(factory) in str(caught.value)


@pytest.mark.parametrize("recall", [0, -1, 1.01, float("nan")])
def test_wrong_recalls_are_named(recall: float) -> None:
    with pytest.raises(UsageError, match=str(recall)):
        choose_factory(100, recall)
