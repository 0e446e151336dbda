import json

import numpy as np
import pytest

from training.errors import DataError, UsageError
from training.schema import Attribute, Schema, full_name, nearest, normalise_name

SCHEMA = Schema(
    (
        Attribute("Collar Shape", ("v-neckline", "round", "0")),
        Attribute("sleeve_length", ("long-sleeve", "short-sleeve")),
        Attribute("pattern", ("floral", "striped", "none"), multi=True),
        Attribute("belt", ("yes", "none")),
    )
)


def test_values_are_numbered_flat_in_order() -> None:
    assert SCHEMA.size == 10
    assert SCHEMA.offsets == (0, 3, 5, 8, 10)
    assert SCHEMA.attribute_of.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert SCHEMA.slice_of(2) == slice(5, 8)


@pytest.mark.parametrize(
    "name", ["v-neckline", "V NECKLINE", "v_neckline", " v - neckline ", "collar-shape:V_Neckline"]
)
def test_names_fold_case_spaces_dashes_and_underscores(name: str) -> None:
    assert SCHEMA.value(name) == 0


def test_unnamed_and_ambiguous_values_show_with_their_attribute() -> None:
    assert SCHEMA.value_names[2] == "collar-shape:0"
    assert SCHEMA.value_names[7] == "pattern:none"
    assert SCHEMA.value_names[5] == "floral"


def test_every_shown_name_resolves_to_its_own_value() -> None:
    assert [SCHEMA.value(name) for name in SCHEMA.value_names] == list(range(SCHEMA.size))


def test_names_that_hold_a_colon_can_be_named() -> None:
    odd = Schema((Attribute("fit:type", ("slim", "none")), Attribute("x", ("disc:1", "none"))))
    assert [odd.value(name) for name in odd.value_names] == [0, 1, 2, 3]
    assert odd.value("x:disc:1") == 2
    assert odd.value("fit:type:none") == 1


def test_condition_by_value_type_and_both() -> None:
    states = SCHEMA.condition(present=["v-neckline"], absent=["striped"], types=["sleeve length"])
    assert states.dtype == np.int8
    assert states.tolist() == [1, 0, 0, 1, 1, 0, -1, 0, 0, 0]
    assert SCHEMA.condition().tolist() == [0] * 10
    # A value named absent wins over its attribute's type condition.
    assert SCHEMA.condition(types=["pattern"], absent=["floral"]).tolist()[5:8] == [-1, 1, 1]


@pytest.mark.parametrize(
    ("present", "absent", "message"),
    [
        (["v-nekline"], [], "v-neckline"),
        (["pattern:flora"], [], "floral"),
        (["none"], [], "pattern:none, belt:none"),
        (["floral"], ["FLORAL"], "both present and absent"),
        (["long-sleeve", "short-sleeve"], [], "only one value"),
        (["sleeve-length"], [], "--like sleeve-length"),
        (["colr:red"], [], "unknown attribute"),
        ([""], [], "unknown value"),
    ],
)
def test_wrong_names_raise_and_help(present: list[str], absent: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SCHEMA.condition(present, absent)


def test_two_values_of_a_multi_valued_attribute_are_no_contradiction() -> None:
    assert SCHEMA.condition(present=["floral", "striped"]).sum() == 2


def test_json_round_trip_keeps_everything() -> None:
    again = Schema.from_json(json.loads(json.dumps(SCHEMA.to_json())))
    assert again == SCHEMA
    assert again.hash == SCHEMA.hash
    assert Schema(SCHEMA.attributes[:3]).hash != SCHEMA.hash


@pytest.mark.parametrize("data", [None, {}, {"attributes": [{"name": "a"}]}, {"attributes": 3}])
def test_malformed_json_is_refused(data: object) -> None:
    with pytest.raises(DataError):
        Schema.from_json(data)


def test_twice_the_same_name_is_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        Schema((Attribute("a", ("x",)), Attribute("A", ("y",))))
    with pytest.raises(DataError, match="twice"):
        Attribute("a", ("x y", "x-y"))


def test_describe_reads_like_the_request() -> None:
    states = SCHEMA.condition(present=["v-neckline"], absent=["striped"], types=["sleeve-length"])
    assert SCHEMA.describe(states) == "v-neckline + sleeve-length=any - striped"
    assert SCHEMA.describe(SCHEMA.condition()) == "all unknown"


def test_normalise_name() -> None:
    assert normalise_name(" Sleeve_Length ") == normalise_name("sleeve  length") == "sleeve-length"


def test_a_value_of_an_attribute_is_not_taken_for_one_that_is_called_so() -> None:
    schema = Schema(
        (
            Attribute("label", ("size:l", "plain")),
            Attribute("size", ("s", "l")),
        )
    )
    assert schema.value("size:l") == 0  # as it always was: the name is a value's own
    assert schema.value_of("size", "L") == 3
    assert schema.value_of("Label", "size:l") == 0
    assert schema.value("size:s") == 2
    with pytest.raises(UsageError, match="unknown value of 'size' 'm'"):
        schema.value_of("size", "m")
    with pytest.raises(UsageError, match="nearest: size"):
        schema.value_of("sizes", "l")


def test_values_that_alone_say_nothing_are_shown_with_their_attribute() -> None:
    schema = Schema((Attribute("hood", ("yes", "no")), Attribute("neck", ("1", "v"))))
    assert schema.value_names == ("hood:yes", "hood:no", "neck:1", "v")
    assert full_name("Zip_Front", "True") == "zip-front:True"


def test_nearest_says_that_there_is_none_and_how_to_see_all() -> None:
    few, many = ["red", "colour:blue"], [f"value {n}" for n in range(40)]
    assert nearest("blu", few) == "nearest: colour:blue"
    assert nearest("qqq", few, all_by="x") == "none is like it; there are: red, colour:blue"
    assert nearest("qqq", many, all_by="x lists all") == "none of the 40 is like it; x lists all"


def test_what_another_schema_does_not_know() -> None:
    one = Schema((Attribute("A", ("x", "Y y")), Attribute("b", ("z",))))
    other = Schema((Attribute("a", ("y-Y", "w")),))
    assert one.unknown_to(other) == ("A:x", "b")
    assert other.unknown_to(one) == ("a:w",)
