"""A build on a Ray cluster of two nodes on this machine gives the bytes of one process."""

from __future__ import annotations

import collections
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import watched
from tiny_gallery import SCHEMA, build, tree, write_images

from indexer.build import on_ray
from indexer.build.build import BuildReport, export_if_missing
from indexer.progress import Silent
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.datasets.dataset import Dataset
from training.errors import DataError, ResourceError, UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion

COUNT = 60  # seven shards of 8, and one of 4
HERE = Path(__file__).resolve()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, ModelConfig(backbone="resnet18", stage="layer1", grid=2, dim=16))
    save_checkpoint(folder, model, Preprocessing(size=32), (), {})
    loaded, paths = load_checkpoint(folder), write_images(folder / "pictures", 2)
    export_if_missing(loaded, folder / "pictures", paths, Silent())  # workers need no torch
    return loaded


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster, with a first node of one core; `events` is the folder of `watched`."""
    if importlib.util.find_spec("ray") is None:  # not imported: it reads the environment then
        pytest.skip("Ray is not installed")
    events = tmp_path_factory.mktemp("events")
    paths = os.pathsep.join([str(HERE.parents[3]), str(HERE.parent)])
    own = {
        "PYTHONPATH": paths,
        "WATCHED": str(events),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "3",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "include_dashboard": False}
        found = Cluster(initialize_head=True, head_node_args=node)
        try:
            yield SimpleNamespace(ray=found, events=events, first=found.head_node.node_id)
        finally:
            found.shutdown()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a file that has just been written is not kept, and manifests would differ."""
    monkeypatch.setattr("training.images.read._TICK_NS", 0)


@pytest.fixture
def events(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of tasks that are watched from now on."""
    for path in cluster.events.iterdir():
        path.unlink()
    monkeypatch.setattr(on_ray, "encode_shard", watched.encode_shard)
    monkeypatch.setattr(on_ray, "look", watched.look)
    found: Path = cluster.events
    return found


def on(cluster: Any, dataset: Dataset, run: Checkpoint, out: Path, **options) -> BuildReport:
    return build(dataset, run, out, ray=cluster.ray.address, runtime="onnx", **options)


def counts(events: Path, kind: str) -> dict[int, int]:
    """How often each shard was begun (`run`), or lost."""
    return collections.Counter(int(path.name.split("-")[1]) for path in events.glob(f"{kind}-*"))


class RemoveNode(Silent):
    """Takes a node out of the cluster once it is in the middle of a shard, and another is done."""

    def __init__(self, cluster: Any, node: Any, events: Path) -> None:
        self._cluster, self._node, self._events, self.removed = cluster, node, events, False
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count
        if self.removed:
            return
        stop = time.monotonic() + 120
        while not any(map(self._held, self._events.glob("lost-*"))):
            assert time.monotonic() < stop, "no task came to the node"
            time.sleep(0.05)
        self._cluster.remove_node(self._node, allow_graceful=False)
        self.removed = True

    def _held(self, lost: Path) -> bool:
        began = lost.with_name(lost.name.replace("lost-", "run-"))
        return (
            began.read_text() == self._node.node_id
            and self._node.node_id == (self._events / "doomed").read_text()
        )


def test_a_killed_worker_and_a_lost_node_cost_only_their_shards(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, cluster: Any, events: Path
) -> None:
    build(dataset, run, tmp_path / "whole", runtime="onnx")
    node = cluster.ray.add_node(num_cpus=1)
    (events / "die").write_text("2")
    (events / "doomed").write_text(node.node_id)
    progress = RemoveNode(cluster.ray, node, events)
    report = on(cluster, dataset, run, tmp_path / "out", progress=progress)
    assert progress.removed
    assert (report.encoded, progress.done) == (COUNT, COUNT)
    lost, began = counts(events, "lost"), counts(events, "run")
    assert sum(lost.values()) >= 2
    assert lost[2] >= 1
    assert began == {number: 1 + lost.get(number, 0) for number in range(8)}
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_only_new_pictures_are_encoded(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, cluster: Any, events: Path
) -> None:
    """A gallery whose pictures have all moved by one: tasks copy what older shards hold."""
    first = dataset.subset(np.arange(1, COUNT))
    for name in ("whole", "out"):
        build(first, run, tmp_path / name, runtime="onnx")
    build(dataset, run, tmp_path / "whole", runtime="onnx")
    report = on(cluster, dataset, run, tmp_path / "out")
    assert (report.encoded, report.kept) == (1, COUNT - 1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    on(cluster, dataset, run, tmp_path / "out")
    assert sum(counts(events, "run").values()) == 8  # nothing was left to do


def test_what_is_wrong_with_the_data_ends_the_build_in_its_own_words(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, cluster: Any, events: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run/model.onnx").write_text("no model")
    with pytest.raises(DataError, match=r"^\S+/out/model/\w+/model\.onnx") as raised:
        on(cluster, dataset, load_checkpoint(tmp_path / "run"), tmp_path / "out")
    assert type(raised.value) is DataError
    assert max(counts(events, "run").values()) == 1  # that is not tried again


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("nonce", ResourceError, r"does not see what is written to .*out \(gone\): all nodes have"),
        ("picture", DataError, r"does not see the picture .*0000\.jpg as it is here \(gone\)"),
    ],
)
def test_a_node_that_does_not_see_the_files_is_named(
    tmp_path: Path,
    dataset: Dataset,
    run: Checkpoint,
    cluster: Any,
    events: Path,
    what: str,
    error: type[Exception],
    words: str,
) -> None:
    (events / "blind").write_text(cluster.first)
    (events / "blind-to").write_text(what)
    with pytest.raises(error, match=rf"Ray's node .* \({cluster.first[:8]}\) {words}"):
        on(cluster, dataset, run, tmp_path / "out")
    assert not counts(events, "run")
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_a_cluster_that_anybody_may_use_is_refused(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for address in ("10.0.0.1:6379", "127.0.0.1:6379", "auto"):
        with pytest.raises(UsageError, match="RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN"):
            build(dataset, run, tmp_path / "out", ray=address)


def test_a_cluster_that_is_not_there(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, cluster: Any
) -> None:
    with pytest.raises(UsageError, match=r"'ray://10.0.0.1:10001' is no Ray cluster"):
        build(dataset, run, tmp_path / "out", ray="ray://10.0.0.1:10001")
    with pytest.raises(ResourceError, match=r"cannot join the Ray cluster 127.0.0.1:1: .*refused"):
        build(dataset, run, tmp_path / "out", ray="127.0.0.1:1")


def test_without_ray_the_extra_is_named(
    tmp_path: Path, dataset: Dataset, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ResourceError, match=r"pip install \"m2fashion-retrieval\[ray\]\""):
        build(dataset, run, tmp_path / "out", ray="10.0.0.1:6379")


def test_which_gpu_is_rays_choice(tmp_path: Path, dataset: Dataset, run: Checkpoint) -> None:
    options = {"ray": "local", "device": "cuda:1", "precision": "float32"}
    with pytest.raises(UsageError, match="--device cuda, not cuda:1"):
        build(dataset, run, tmp_path / "out", **options)
    with pytest.raises(UsageError, match="give --precision bfloat16, or float32"):
        build(dataset, run, tmp_path / "out", **options | {"precision": "auto"})
    assert not (tmp_path / "out").exists()
