"""Rows, their growth, the results file that several sittings fill, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.result import merge, order, read_results, rows_of, stem
from benchmarks.speed.row import Row, growth
from benchmarks.speed.speed_chart import draw_chart
from benchmarks.speed.speed_markdown import figure, markdown
from training.errors import DataError

SOURCE = {
    "dataset": "shop",
    "images": 45,
    "backbone": "small",
    "dim": 16,
    "cells": 9,
    "values": 5,
    "attributes": 2,
}
NOW = {"machine": "abacus, 2 cores, no GPU", "commit": "abc", "source": SOURCE}
ROWS = [
    Row("query under an existing view", 100, 2.0, "ms", 1.0, 2.0, 1.0, "raw faiss"),
    Row("exact view, new combination", 100, 0.5, "s", 0.4, 1.25, against="a pass"),
    Row("exact view, new combination", 1000, 5.0, "s", 4.0, 1.25, None, "a pass", 5, 10**9, 10**6),
    Row("something else", None, 1.0, "s", details={"a": 1}),
]


def test_growth_is_the_exponent_of_the_size() -> None:
    rows = [Row("square", n, 3e-4 * n**2, "s") for n in (10, 100, 1000)]
    rows += [Row("flat", n, 7.0, "s") for n in (10, 100)]
    rows += [Row("once", 10, 1.0, "s"), Row("no size", None, 1.0, "s")]
    rows += [Row("at one size", 10, value, "s") for value in (1.0, 2.0)]
    found = growth(rows)
    assert found == {"square": pytest.approx(2), "flat": pytest.approx(0, abs=1e-9)}
    # Least squares: between what each pair of points says.
    bent = growth([Row("bent", n, v, "s") for n, v in ((1, 1.0), (10, 10.0), (100, 1000.0))])
    assert bent["bent"] == pytest.approx(1.5)


def test_a_row_survives_json() -> None:
    for row in ROWS:
        assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert Row("a", 1, 1.23456789, "s").to_json()["value"] == 1.2346
    data = ROWS[0].to_json()
    assert {"what", "size", "value", "unit", "floor", "ratio", "recall"} <= set(data)


def test_new_rows_take_the_place_of_the_same_operation_and_size() -> None:
    first = merge(None, NOW, ROWS)
    again = Row("exact view, new combination", 1000, 4.0, "s", 4.0, 1.0)
    settings = {"repeats": 2}
    second = merge(first, NOW | {"commit": "def"}, [again, Row("newer", 1, 1.0, "s")], settings)
    rows = {(row.what, row.size): row for row in rows_of(second)}
    assert len(rows) == len(second["rows"]) == 5
    assert rows[again.what, 1000].value == 4.0
    assert [rows[again.what, size].commit for size in (100, 1000)] == ["abc", "def"]
    assert [rows[again.what, size].settings for size in (100, 1000)] == [None, settings]
    other = NOW | {"source": SOURCE | {"images": 46}}
    with pytest.raises(DataError, match=r"of 45 images of shop .*, this index is of 46 images"):
        merge(second, other, [])
    assert second["growth"][again.what] == pytest.approx(0.903, abs=1e-3)
    names = [row.what for row in rows_of(second)]
    assert names == sorted(names, key=order)
    assert names[0] == again.what


def test_markdown_shows_every_row_with_its_floor() -> None:
    text = markdown(merge(None, NOW, ROWS))
    lines = text.splitlines()
    assert (
        "| exact view, new combination | 1,000 | 5 s | 4 s | 1.25 |  | 1 MB | 1,000 MB |" in lines
    )
    assert "| query under an existing view | 100 | 2 ms | 1 ms | 2.00 | 1.000 |  |  |" in lines
    assert "| something else |  | 1 s |  |  |  |  |  |" in lines
    assert "| exact view, new combination | 1.00 |" in lines
    assert "- query under an existing view: the floor is raw faiss." in lines
    assert "abacus, 2 cores, no GPU" in text
    shown = [figure(v) for v in (0.0123456, 12.345, 1234.6, 0.999987, 1.0)]
    assert shown == ["0.0123", "12.3", "1,235", "0.999987", "1"]


def test_a_chart_needs_two_sizes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_chart(merge(None, NOW, ROWS), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_chart(merge(None, NOW, ROWS[:2]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_broken_results_file_is_named(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.json") is None
    for text in ("{", '{"rows": [{"when": 1}]}', "{}"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=r"bad\.json"):
            read_results(tmp_path / "bad.json")


def test_the_file_is_named_after_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import benchmarks.speed.result as result

    monkeypatch.setattr(result, "cores", lambda: 2)
    monkeypatch.setattr(result, "vector_instructions", lambda: "AVX512")
    assert stem("cpu") == "speed-cpu-2-cores-avx512"
    monkeypatch.setattr(result, "machine_name", lambda device: "x86_64, 16 cores, NVIDIA H100 80GB")
    assert stem("cuda:0") == "speed-nvidia-h100-80gb"
