"""What Ray's workers run in tests: the real task, which tells that it runs and, told so, dies.

In the folder `$WATCHED`: `run-SHARD-ID` of each that began, with its node; `lost-SHARD-ID` of each
that will not end. The first to encode some of shard `die` is killed; on node `doomed` all wait for
ever; node `blind` does not see what `blind-to` says, `picture` or `nonce`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from indexer.build import on_ray
from indexer.build.shards import ShardBuffer

real_shard, real_look = on_ray.encode_shard, on_ray.look


def encode_shard(job, work, files):
    import ray

    folder, number = Path(os.environ["WATCHED"]), work.plan.number
    node, name = ray.get_runtime_context().get_node_id(), f"{number}-{uuid4().hex}"
    (folder / f"run-{name}").write_text(node)
    real_add = ShardBuffer.add

    def add(buffer, places, batch):
        real_add(buffer, places, batch)
        told = folder / "die"
        if told.exists() and int(told.read_text()) == number:
            told.unlink()
            (folder / f"lost-{name}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if _is(node, "doomed"):
            (folder / f"lost-{name}").touch()
            while True:
                time.sleep(1)

    with patch.object(ShardBuffer, "add", add):
        return real_shard(job, work, files)


def look(paths):
    import ray

    found, here = real_look(paths), ray.get_runtime_context()
    if here.get_task_id() is None or not _is(here.get_node_id(), "blind"):  # None: the driver
        return found
    picture = (Path(os.environ["WATCHED"]) / "blind-to").read_text() == "picture"
    pairs = zip(paths, found, strict=True)
    return ["gone" if (path.suffix == ".jpg") == picture else seen for path, seen in pairs]


def _is(node: str, name: str) -> bool:
    path = Path(os.environ["WATCHED"]) / name
    return path.exists() and path.read_text() == node
