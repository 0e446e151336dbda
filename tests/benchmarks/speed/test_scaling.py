"""The arithmetic of docs/scaling.md against numbers worked out by hand, and the page itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import scaling
from benchmarks.speed.result import merge
from benchmarks.speed.row import Row
from benchmarks.speed.scaling import Constants, constants_of, scale, tables, with_tables
from benchmarks.write_results import RESULTS
from training.errors import DataError

CONSTANTS = Constants(
    store_bytes=50_000,
    view_bytes=2_000,
    code_bytes=72,
    pass_bytes=40_000,
    bandwidth=8e9,
    tail_flop=2e6,
    flops=1e11,
    overhead=1.6,
    encode_rate=100,
    encoded_by="onnx",
    cold_ms=100,
    cold_size=250_000,
    index_ms=2,
    index_size=2_000_000,
    memory=24e9,
)


def test_ten_million_images_by_hand() -> None:
    found = scale(CONSTANTS, 10_000_000)
    assert found.store_bytes == 500e9
    assert found.view_bytes == 20e9
    assert found.code_bytes == 720e6
    assert found.nodes == 28  # 500 GB over 18 GB each: 27.8
    # 40 KB at 8 GB/s is 5 us, 2 MFLOP at 100 GFLOP/s is 20 us; x 1.6 x 10 million = 400 s.
    assert found.exact_seconds == pytest.approx(400 / 28)
    assert found.nodes_a_second == 400
    assert found.cold_ms == pytest.approx(100 * (10_000_000 / 28) / 250_000)
    assert found.index_ms == 2  # a node's 357,143 vectors are fewer than were measured
    assert found.encode_days == pytest.approx(100_000 / 86_400)


def test_a_gallery_that_fits_one_node() -> None:
    found = scale(CONSTANTS, 250_000)
    assert (found.nodes, found.nodes_a_second) == (1, 10)
    assert found.exact_seconds == pytest.approx(10)
    assert found.cold_ms == 100


def test_what_was_not_measured_stays_open() -> None:
    bare = replace(CONSTANTS, code_bytes=None, encode_rate=None, cold_ms=None, index_ms=None)
    found = scale(bare, 10_000_000)
    assert (found.code_bytes, found.cold_ms, found.index_ms, found.encode_days) == (None,) * 4
    assert found.nodes == 28


def results() -> dict[str, Any]:
    model = 7_000_000  # bytes that do not grow
    details = {
        "pass_bytes_per_second": 8e9,
        "tail_flop_per_image": 2_000_000,
        "tail_flop_per_second": 1e11,
        "store_bytes": 50_000 * 1000 + model,
        "view_bytes": 2000 * 1000,
    }
    small = {"store_bytes": 50_000 * 10 + model, "view_bytes": 1}
    rows = [
        Row(scaling.EXACT, 10, 1, "s", 1, 9.0, bytes_read=1, details=details | small),
        Row(scaling.EXACT, 1000, 0.04, "s", 0.02, 2.0, bytes_read=40_000_000, details=details),
        Row("encode a gallery, torch", 512, 80, "images/s"),
        Row("encode a gallery, onnx", 512, 100, "images/s"),
        Row(scaling.IVF, 2_000_000, 2, "ms", details={"code_bytes": 144_000_000}),
    ]
    now = {"machine": "abacus", "commit": "abc", "memory": 24_000_000_000}
    return merge(None, now, rows)


def test_constants_are_those_of_the_largest_size() -> None:
    assert constants_of(results()) == replace(CONSTANTS, cold_ms=None, cold_size=0)
    with pytest.raises(DataError, match="exact view"):
        constants_of(merge(None, {"commit": "abc"}, []))


def test_bytes_of_an_image_from_one_size() -> None:
    data = results()
    data["rows"] = [row for row in data["rows"] if row["size"] != 10]
    assert constants_of(data).store_bytes == 57_000
    for row in data["rows"]:
        (row["details"] or {}).pop("store_bytes", None)
    with pytest.raises(DataError, match="no bytes of the index"):
        constants_of(data)


def test_tables_say_what_is_missing() -> None:
    text = tables(results(), "speed-cpu")
    assert (
        "| 10,000,000 | 500.0 GB | 20.0 GB | 720.0 MB | 28 | 14.3 s | 400 | not measured |" in text
    )
    assert "| cold combination in two stages, images | not measured |" in text
    assert "| bytes of an image in the index (I and P, scales, labels) | 50.0 KB |" in text


def test_the_page_is_what_the_results_say() -> None:
    page = scaling.PAGE.read_text()
    assert with_tables(page, RESULTS) == page, "run python -m benchmarks.speed.scaling"


def test_a_page_gets_the_tables_of_every_machine(tmp_path: Path) -> None:
    page = "a\n<!-- scaling -->\nold\n<!-- end -->\nb"
    assert with_tables(page, tmp_path) == page.replace("old", "Nothing is measured yet.")
    for name in ("one", "two"):
        text = json.dumps(results() | {"machine": name})
        (tmp_path / f"speed-{name}.json").write_text(text)
    made = with_tables(page, tmp_path)
    shown = "\n\n".join(
        tables(results() | {"machine": name}, f"speed-{name}") for name in ("one", "two")
    )
    assert "(../benchmarks/results/speed-one.md)" in shown
    assert made == page.replace("old", shown)
    assert with_tables(made, tmp_path) == made
    with pytest.raises(DataError, match="lacks the marks"):
        with_tables("a page", tmp_path)
