"""The demo in miniature: every command of it runs, and leaves what `make demo` promises."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image


def test_demo_runs_and_leaves_its_report(tmp_path: Path) -> None:
    # A seed of which few pictures hold one with both values that are asked for.
    sizes = ["--train-count", "300", "--gallery-count", "100", "--epochs", "4", "--seed", "8"]
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--out", str(out), *sizes],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads((out / "report.json").read_text())
    assert {"map", "chance", "same_precision_at_10", "but_precision_at_10", "seconds"} <= set(
        report
    )
    assert len(report["attributes"]) == 9
    assert 5 < report["chance"] < report["map"] < 100
    for name in ("query.png", "query-but.png"):
        with Image.open(out / name) as sheet:
            assert min(sheet.size) > 400
    # A folder that is not a demo's is left alone.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    again = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--out", str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode != 0
    assert (tmp_path / "mine" / "work.txt").read_text() == "mine"
