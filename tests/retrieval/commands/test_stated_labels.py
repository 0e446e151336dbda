"""Labels as a person states them: what is stated, what follows, what is refused."""

from __future__ import annotations

import pytest

from retrieval.commands.add import stated_labels
from training.errors import UsageError
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("size", ("s", "l")),
        Attribute("note", ("size:l", "plain")),
        Attribute("colour", ("red", "blue", "white"), multi=True),
    )
)


def test_a_value_is_that_of_its_own_attribute_and_the_others_are_absent() -> None:
    assert stated_labels(SCHEMA, ["size=l"]).tolist() == [-1, 1, 0, 0, 0, 0, 0]
    assert stated_labels(SCHEMA, ["Note = Size:L"]).tolist() == [0, 0, 1, -1, 0, 0, 0]
    assert stated_labels(SCHEMA, ["colour=red", "colour=white"]).tolist() == [0] * 4 + [1, -1, 1]
    assert stated_labels(SCHEMA, []).tolist() == [0] * 7


def test_two_values_of_which_an_image_has_only_one_are_refused() -> None:
    with pytest.raises(UsageError, match="size=s, size=l: an image has only one value of 'size'"):
        stated_labels(SCHEMA, ["size=s", "size=l"])
    assert stated_labels(SCHEMA, ["size=s", "size=S"]).tolist() == [1, -1, 0, 0, 0, 0, 0]
