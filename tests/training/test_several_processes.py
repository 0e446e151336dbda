"""Two processes on one machine, over gloo, against one process with the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from shared_runs import run_all, shared_configs
from tiny_catalogue import write_tiny_catalogue

from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.models.backbones import build_backbone
from training.processes import ALONE, Processes, joined
from training.resume import read_last

HERE = Path(__file__).resolve()
RUNS = tuple(shared_configs(""))
LIMIT = 240  # seconds; far more than is needed, for a machine that is busy


def _environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join((str(HERE.parents[2]), str(HERE.parent)))
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":  # whatever the host's name resolves to
        own["GLOO_SOCKET_IFNAME"] = "lo"
    return os.environ | own | more


def _start(*arguments: object, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=_environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)


@dataclass(frozen=True)
class Both:
    """One process' reports and folder, and those of two that shared every batch."""

    alone: dict[str, Any]
    shared: tuple[dict[str, Any], dict[str, Any]]
    alone_out: Path
    shared_out: Path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "shapes", 42)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = build_backbone("small", "layer3")
    with torch.no_grad():
        for _ in range(40):  # batch norms that have seen something
            network(torch.randn(16, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def both(catalogue: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    out = tmp_path_factory.mktemp("runs")
    (out / "shared").mkdir()
    process = _start(*TORCHRUN, HERE.parent / "shared_runs.py", catalogue, weights, out / "shared")
    try:
        alone = run_all(load_dataset(str(catalogue)), str(weights), out / "alone")
        _, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    shared = [json.loads((out / f"shared/report-{rank}.json").read_text()) for rank in (0, 1)]
    return Both(alone, (shared[0], shared[1]), out / "alone", out / "shared")


@pytest.mark.parametrize("name", RUNS)
def test_the_loss_curve_is_that_of_one_process(both: Both, name: str) -> None:
    alone, first, second = both.alone[name], both.shared[0][name], both.shared[1][name]
    assert len(alone["losses"]) == 2
    assert len(alone["steps"]) == 4
    for key in ("losses", "steps"):
        for one, two, other in zip(alone[key], first[key], second[key], strict=True):
            assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    totals = [step["total"] for step in alone["steps"]]
    assert min(totals) > 0
    assert len(set(totals)) == 4


@pytest.mark.parametrize("name", RUNS)
def test_the_first_process_validates_and_writes_what_one_would(both: Both, name: str) -> None:
    assert both.shared[0][name]["validation"] == pytest.approx(both.alone[name]["validation"])
    assert both.shared[1][name]["validation"] == [None, None]
    ours, theirs = both.alone_out / name / "run", both.shared_out / name / "run"
    files = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (ours, theirs)]
    assert files[0] == files[1]
    one, two = (read_last(run).model for run in (ours, theirs))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def train(catalogue: Path, weights: Path, tmp_path: Path) -> tuple[object, ...]:
    """The command, up to its batch size."""
    return (
        "-m", "retrieval.cli", "train", "--dataset", catalogue, "--out", tmp_path / "run",
        "--backbone", "small", "--stage", "layer3", "--weights", weights, "--image-size", 32,
        "--workers", 0, "--epochs", 1, "--device", "cpu", "--batch-size",
    )  # fmt: skip


def _two(*command: object) -> list[subprocess.Popen[str]]:
    """Two processes that find each other, as `torchrun` would start them."""
    joined = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [_start(*command, RANK=str(rank), LOCAL_RANK=str(rank), **joined) for rank in range(2)]


def test_the_command_starts_processes_itself_wherever_it_is(
    train: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "training").mkdir(parents=True)  # a folder of one's own hides none of ours
    monkeypatch.chdir(here)
    process = _start("-P", *train, 7, "--processes", 2)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, err
    refused = "a batch of 7 cannot be shared by 2 processes evenly"
    assert " ".join(err.split()).count(refused) == 2, err  # by each
    assert "Traceback" not in err
    process = _start("-P", *train, 8, "--json", "--processes", 2)
    try:
        text, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert json.loads(text)["images"] == 28  # one document, not one a process
    assert err.count("epoch 1/1") == 1
    assert (tmp_path / "run/best/model.safetensors").is_file()


def test_alone_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    part = torch.randn(3, 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (ALONE, "cpu")
        assert processes.gather(part) is part
        processes.wait()
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined("cpu") as (processes, _):
        assert processes is ALONE
    assert [Processes(rank, 3).share(12) for rank in range(3)] == [
        slice(0, 4), slice(4, 8), slice(8, 12),
    ]  # fmt: skip


def test_fault_34_when_a_rank_dies_all_end_and_the_last_checkpoint_loads(
    catalogue: Path, weights: Path, tmp_path: Path
) -> None:
    command = (
        "-m", "retrieval.cli", "train", "--dataset", catalogue, "--out", tmp_path / "run",
        "--backbone", "small", "--stage", "layer3", "--weights", weights, "--image-size", 32,
        "--workers", 0, "--epochs", 10_000, "--device", "cpu", "--batch-size", 8,
    )  # fmt: skip
    processes = _two(*command)
    run = tmp_path / "run"
    try:
        stop = time.monotonic() + LIMIT
        while not (run / "last.pt").exists():
            assert time.monotonic() < stop, "no epoch ended"
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        processes[1].kill()
        _, err = processes[0].communicate(timeout=LIMIT)
        assert processes[0].returncode not in (0, 1), err
        assert processes[0].returncode > 0, err
        assert "Traceback" not in err
        processes[1].wait(timeout=LIMIT)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(read_last(run).epochs) >= 1
    assert load_checkpoint(run).training["epoch"] >= 1
