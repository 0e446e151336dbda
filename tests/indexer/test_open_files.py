"""Indexes of more shards than a process may have files open, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_gallery import write_images

resource = pytest.importorskip("resource")

SHARDS = 60
CODE = """
import resource, sys
from pathlib import Path
from indexer.build import edit
from indexer.search.index import open_search
from indexer.store.store import open_store
from training.errors import ResourceError

root, soft, hard = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    if sys.argv[4] == "build":
        from tiny_gallery import build, gallery, tiny_checkpoint  # torch, which no other needs
        names = [f"pic/{number:04d}.jpg" for number in range(int(sys.argv[5]))]
        build(gallery(root, names), tiny_checkpoint(root / "run"), root / "out", shard_rows=1)
    if sys.argv[4] == "edit":
        edit.remove_images(root / "out", ["pic/0000.jpg"])
    store = open_store(root / "out")
    others = [open_store(root / "out") for _ in range(2)] if sys.argv[4] == "three" else []
    others = [other.descriptors() for other in others]
    open_search(store)
    count = len(store.descriptors()) + sum(map(len, others))
    print(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
except ResourceError as error:
    print(error)
"""


def run(root: Path, soft: int, hard: int, what: str) -> str:
    command = [sys.executable, "-c", CODE, *map(str, (root, soft, hard, what, SHARDS))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return done.stdout.strip()


def test_the_limit_is_raised_as_far_as_it_goes(tmp_path: Path) -> None:
    write_images(tmp_path, SHARDS)
    count, limit = run(tmp_path, 100, 500, "build").split()  # two a shard and others are more
    assert int(count) == SHARDS
    assert int(limit) > 2 * SHARDS
    assert run(tmp_path, 400, 500, "open").split() == [str(SHARDS), "400"]  # what suffices stays
    # An edit holds the old version open beside the new one, and other indexes may be open.
    assert run(tmp_path, 100, 900, "edit").startswith(str(SHARDS - 1))
    assert run(tmp_path, 100, 900, "three").split()[0] == str(3 * (SHARDS - 1))
    for hard in (50, 100):  # too few to open the shards, and to read them
        assert "too many open files" in run(tmp_path, 40, hard, "open")
