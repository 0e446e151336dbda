"""The process that measures the memory of a build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_gallery_of_any_size_from_few_images(source: Path, tmp_path: Path) -> None:
    left = tmp_path / "built/gallery/000/000000.jpg"  # by a run that was killed
    left.parent.mkdir(parents=True)
    left.write_bytes(b"no picture")
    images = source.parent / "garments/images"
    words = [source.parent / "run", images, 60, tmp_path / "built"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.build_gallery", *map(str, words)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    cost = json.loads(done.stdout)
    assert cost["images"] == 59  # 60 names of 46 files, one of which is broken
    assert cost["anonymous"] > 0
    assert cost["index_bytes"] > 59 * 2 * 9 * 16
    assert not (tmp_path / "built").exists()
