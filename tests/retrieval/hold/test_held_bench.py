"""`retrieve bench held`, small: what is asked of both is answered alike."""

from __future__ import annotations

import json
from pathlib import Path

from small_index import Shop, run

from benchmarks.held import KINDS
from benchmarks.private_server import PrivateServer


def test_it_measures_both(server: PrivateServer, shop: Shop, tmp_path: Path, capsys) -> None:
    words = ["--index", shop.index, "--size", 300, "--requests", 40, "--work", tmp_path / "work"]
    words += ["--postgres", server.url, "--results", tmp_path]
    code, out, _ = run(capsys, "bench", "held", *words)
    assert code == 0
    (path,) = tmp_path.glob("held-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["held"] for row in rows] == ["files", "PostgreSQL, pgvector"]
    for row in rows:
        assert set(row["recall"]) == {*KINDS, "with a filter"}
        assert row["all"] == row["worst_filter"] == 1  # so few are all read
        assert row["held"] in out
    assert rows[1]["bytes"] > rows[0]["bytes"] > 0
