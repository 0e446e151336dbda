"""`retrieve bench busy` in miniature, its commands in this process but for the queries."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from tiny_catalogue import write_tiny_catalogue

from benchmarks import busy
from benchmarks.common import vector_instructions
from retrieval.cli import _run
from training.threads import cores


def test_every_job_is_timed_beside_every_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def retrieve(*words: Any, capture: bool = False, environment: Any = None) -> str:
        ran.append((words[0], environment or {}))
        with redirect_stdout(io.StringIO()) as out:
            assert _run([str(word) for word in words], False) == 0
        return out.getvalue()

    monkeypatch.setattr(busy, "retrieve", retrieve)
    monkeypatch.setattr(busy, "LOADS", (0, 1))
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 60)
    arguments = ["--dataset", str(catalogue), "--results", str(tmp_path / "out"), "--workers", "0"]
    arguments += ["--images", "40", "--size", "32", "--backbone", "small", "--epochs", "2"]
    assert _run(["bench", "busy", *arguments, "--queries", "2", "--rounds", "1"], False) == 0
    stem = f"busy-cpu-{cores()}-cores-{vector_instructions().casefold()}"
    data = json.loads((tmp_path / f"out/{stem}.json").read_text())
    assert (tmp_path / f"out/{stem}.md").read_text() in capsys.readouterr().out
    jobs = ["epoch of training", "the same, spinning", "build", "query"]
    assert [(row["job"], row["busy"]) for row in data["rows"]] == [
        (job, load) for job in jobs for load in (0, 1)
    ]
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in data["rows"])
    assert [row["ratio"] for row in data["rows"] if row["busy"] == 0] == [1.0] * 4
    assert (data["gallery"], data["epochs"]) == (13, 2)
    spun = {"GOMP_SPINCOUNT": "300000"}
    once = [("train", {}), ("train", spun), ("build-index", {})]
    assert ran == [("train", {}), *once * 2]  # the first stores the maps


def test_ratios_are_those_of_a_round() -> None:
    assert busy.LOADS == (0, 1, 2)
    rows = busy.to_rows({"job": [[1.0, 2.0, 3.0], [2.0, 3.0, 8.0], [4.0, 8.0, 12.0]]})
    assert [row["seconds"] for row in rows] == [2.0, 3.0, 8.0]
    assert [row["ratio"] for row in rows] == [1.0, 2.0, 3.0]


def test_no_process_burns_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Kept)

    def fail() -> None:
        with busy.burning(2):
            assert [one.poll() for one in started] == [None] * 2
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        fail()
    assert [one.returncode for one in started] == [-9] * 2


def test_a_process_ends_with_whoever_started_it() -> None:
    code = "import os\nfrom benchmarks.busy import burning\nwith burning(1): os._exit(3)"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.PIPE,  # also the burning process': it is read until that has ended
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, b"")
