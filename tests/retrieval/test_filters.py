"""Filters as texts and mappings: how they are read, and what is refused."""

from __future__ import annotations

import pytest

from indexer.store.gallery import Column, PathList
from retrieval.request import parse_filters, resolve_filters
from training.errors import UsageError
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("Sleeve Length", ("short", "long")), Attribute("colour", ("red",))))
COLUMNS = {
    "price": Column("price", PathList.of(["1", "", "2.5"])),
    "Brand": Column("Brand", PathList.of(["acme", "", "<new>"])),
}


def test_texts_become_one_mapping() -> None:
    texts = ["colour=red", "Colour != blue", "price<50", " price >= 10", "brand==<new>", "a=b=c"]
    assert parse_filters(texts) == {
        "colour": ["=red", "!= blue"],
        "price": ["<50", ">= 10"],
        "brand": ["==<new>"],
        "a": ["=b=c"],
    }


@pytest.mark.parametrize("text", ["colour", "=red", "colour=", "colour!=", "<5", "", "price >= "])
def test_a_text_that_is_no_filter(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form"):
        parse_filters([text])


def test_names_are_looked_up_whatever_their_case() -> None:
    where = {"sleeve_length": ["LONG", "!=short"], "BRAND": "=<new>", "Price": [">=1", "<2e1"]}
    found = resolve_filters(SCHEMA, COLUMNS, where)
    assert [(f.name, f.operator, f.value, f.flat) for f in found] == [
        ("sleeve-length", "=", "LONG", 1),
        ("sleeve-length", "!=", "short", 0),
        ("Brand", "=", "<new>", None),
        ("price", ">=", "1", None),
        ("price", "<", "2e1", None),
    ]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"sleeve length": "<long"}, "'sleeve length' is an attribute; compare it with = or !="),
        ({"colour": "rde"}, "unknown value of 'colour' 'rde'; nearest: red"),
        ({"prize": "<5"}, "unknown attribute or column 'prize'; nearest: price"),
        ({"brand": "<5"}, "'Brand' does not hold numbers alone"),
        ({"price": "<cheap"}, "'cheap' is no number"),
        ({"price": ">=nan"}, "'nan' is no number"),
        (["colour=red"], "where takes attribute -> value"),
    ],
)
def test_what_is_refused(where, words: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve_filters(SCHEMA, COLUMNS, where)
    assert words in str(error.value)
