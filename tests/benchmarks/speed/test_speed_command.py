"""`retrieve bench speed` on a tiny index: every row is there, the file grows by sittings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.bench import Bench, combinations_of, new_conditions
from benchmarks.speed.cold_rows import cold_rows
from benchmarks.speed.index_rows import index_bytes
from benchmarks.speed.rows import ROWS
from benchmarks.speed.sphere import sphere
from benchmarks.speed.view_rows import recall
from indexer.store import open_store
from retrieval.cli import _run
from retrieval.engine import Engine
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (Attribute("a", ("x", "y")), Attribute("b", ("p", "q", "r")), Attribute("c", ("s", "t")))
)


def test_a_run_in_two_sittings(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--index", source, "--work", tmp_path / "work", "--results", tmp_path / "results"]
    options += ["--sizes", "30,60", "--queries", "3", "--combinations", "2", "--repeats", "1"]
    options += ["--encode-images", "8", "--device", "cpu", "--json"]
    options += ["--dataset", open_store(source).root]

    def bench(rows: str) -> dict[str, dict[int, dict[str, object]]]:
        words = ["bench", "speed", *options, "--rows", rows]
        assert _run([str(word) for word in words], debug=True) == 0
        out: dict[str, dict[int, dict[str, object]]] = {}
        for row in json.loads(capsys.readouterr().out)["rows"]:
            out.setdefault(row["what"], {})[row["size"]] = row
        return out

    first = bench("exact,view")
    assert {name: list(rows) for name, rows in first.items()} == {
        "exact view, new combination": [30, 60],
        "query under an existing view": [30, 60],
    }
    second = bench("encode,kernel")
    assert set(first) < set(second)
    for rows in second.values():
        for row in rows.values():
            assert row["value"] > 0
            assert row["commit"]
    assert second["kernel against the torch reference: least cosine"][60]["value"] > 0.9999
    assert second["query under an existing view"][60]["recall"] == 1
    exact = second["exact view, new combination"][60]
    assert exact["bytes_read"] == 60 * 2 * 9 * (16 + 4)
    assert exact["floor"] > 0
    assert exact["ratio"] > 0
    (file,) = (tmp_path / "results").glob("speed-*.md")
    assert "| exact view, new combination | 60 |" in file.read_text()
    assert file.with_suffix(".png").is_file()


def test_cold_combinations_are_measured_where_the_engine_looks_for_candidates(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Engine.open

    def early(folder: Path, device: str = "auto") -> Engine:
        engine = opened(folder, device)
        engine.two_stage_from = 600
        return engine

    monkeypatch.setattr(Engine, "open", early)
    sizes = (50, 700)
    bench = Bench(source, None, tmp_path, sizes, (), (), queries=2, combinations=2, repeats=1)
    (cold,) = cold_rows(bench)
    engine = bench.engine(700)
    for values in bench.drawn(engine):
        assert engine.pool.existing(engine.schema.value_condition(values)) is None, "stays cold"
    assert (cold.what, cold.size) == ("cold combination, two stages", 700)
    assert cold.repeats == 4
    assert cold.recall is not None
    assert 0.5 < cold.recall <= 1


@pytest.mark.parametrize("options", [("--rows", "exacts"), ("--sizes", "10,x"), ("--sizes", "0")])
def test_wrong_options_are_named(
    source: Path, options: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["bench", "speed", "--index", str(source), *options], debug=False) == 2
    assert options[1] in capsys.readouterr().err


def test_every_row_of_the_issue_has_a_name() -> None:
    assert {"exact", "view", "approximate", "encode", "encode-onnx", "memory"} <= set(ROWS)
    assert {"start", "kernel", "index", "cold"} <= set(ROWS)


def test_combinations_are_what_images_have() -> None:
    chances = np.zeros((5, 7), np.float16)
    chances[:, [1, 3, 6]] = 1
    found = combinations_of(SCHEMA, chances, 3, seed=0)
    assert len(found) == len(set(map(tuple, found))) == 3
    assert all(set(values) <= {1, 3, 6} and len(values) in (2, 3) for values in found)
    assert combinations_of(SCHEMA, chances, 99, 0)[:3] == found, "no more than there are"
    assert len(combinations_of(SCHEMA, chances, 99, 0)) == 4
    conditions = new_conditions(SCHEMA, 4, 0)
    assert [int(c.sum()) for c in conditions] == [2, 3, 2, 3]


def test_recall_counts_ties_as_found() -> None:
    vectors = np.eye(30, dtype=np.float32)
    query = np.zeros(30, np.float32)
    query[:9], query[9:12] = 1.0, 0.5  # nine nearest, then three alike for one place
    for last, right in ((9, 1.0), (11, 1.0), (20, 0.9)):
        assert recall([np.array([*range(9), last])], [query], vectors) == pytest.approx(right)
    assert recall([np.arange(30)], [query], vectors) == 1.0  # ten of them are looked at


def test_the_sphere_is_real_first_and_the_same_however_long(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(50, 8)).astype(np.float32)
    real /= np.linalg.norm(real, axis=1, keepdims=True)
    long = sphere(real, 20_000, tmp_path / "long")
    np.testing.assert_array_equal(long[:50], real)
    np.testing.assert_allclose(np.linalg.norm(long, axis=1), 1, atol=1e-5)
    assert len(np.unique(long, axis=0)) == 20_000
    np.testing.assert_array_equal(sphere(real, 16_384, tmp_path / "short"), long[:16_384])
    before = (tmp_path / "long").stat().st_mtime_ns
    assert len(sphere(real, 100, tmp_path / "long")) == 100
    assert (tmp_path / "long").stat().st_mtime_ns == before


def test_bytes_of_codes() -> None:
    assert index_bytes("PQ128x4fs", 1000, 512) == 64_000
    assert index_bytes("IVF16,PQ128x4fs", 1000, 512) == 64_000 + 8_000 + 16 * 2048
    assert index_bytes("IVF16,SQ8", 1000, 512) == 512_000 + 8_000 + 16 * 2048
