"""`retrieve label`: empty cells are filled as the catalogue writes them, others stay."""

import csv
import json
from pathlib import Path

import pytest

from retrieval.cli import _run

TABLE = """image;title;notes;Colour;neck details;price;split;season
a.jpg;Blue floral-print V-neck dress;;;Round;1,5;train;
b.jpg;White & blue tees, zorbed;;Red|White;;2,0;test;
c.jpg;Plain trousers, no colour;in RED;;;2,5;train;
d.jpg;Train top;black;;;3,0;test;
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "products.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shop"


def cells(file: Path) -> dict[str, list[str]]:
    rows = list(csv.DictReader(file.read_text().splitlines(), delimiter=";"))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_empty_cells_are_filled(shop: Path, capsys) -> None:
    words = ["--text", "title,notes", "--out", "shop/labels.csv", "--json"]
    assert _run(["label", "shop", *words], False) == 0
    before, after = cells(shop / "products.csv"), cells(shop / "labels.csv")
    for name in before.keys() - {"Colour"}:
        assert after[name] == before[name]
    assert after["Colour"] == ["", "Red|White", "Red", ""]  # it knows no blue and no black
    assert after["category"] == ["dress", "t-shirt", "trousers", "top"]
    assert after["pattern"] == ["floral", "", "solid", ""]
    assert after["collar-shape"] == ["v-neck", "", "", ""]
    assert list(after)[: len(before)] == list(before)
    assert not {"season", "usage", "button"} & (after.keys() - before.keys())
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 4
    assert {"attribute": "Colour", "known": 1, "filled": 1} in found["attributes"]
    zorbed = {"word": "zorbed", "rows": 1, "text": "White & blue tees, zorbed"}
    assert zorbed in found["unused"]
    assert _run(["label", "shop", *words], False) == 2  # labels.csv is the catalogue's own now


def test_only_what_is_asked_for(shop: Path, capsys) -> None:
    (shop / "own.toml").write_text('[season.terms]\nwinter = ["trousers"]\n')
    words = ["--text", "title", "--out", "out.csv", "--vocabulary", "shop/own.toml"]
    assert _run(["label", "shop", *words, "--attributes", "season,length"], False) == 0
    before, after = cells(shop / "products.csv"), cells(Path("out.csv"))
    assert after.keys() - before.keys() == {"length"}
    assert after["season"] == ["", "", "winter", ""]  # the empty column is filled, not doubled
    assert after["Colour"] == before["Colour"]
    assert _run(["label", "shop", *words, "--attributes", "lenght"], False) == 2
    assert "length" in capsys.readouterr().err
