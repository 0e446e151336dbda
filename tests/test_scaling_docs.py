"""docs/scaling.md: each command does on one machine what the page says it does on many, and its
table follows from the committed results."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_catalogue import write_tiny_catalogue

from indexer.store.shard import rows_a_shard
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.models.backbones import build_backbone
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/scaling.md").read_text()
LIMIT = 240  # seconds; far more than is needed
SBATCH = """#!/bin/sh
# Of `--array=1-N --cpus-per-task=C --wrap COMMAND`, one task after another.
last=${1#--array=1-}
for number in $(seq "$last"); do SLURM_ARRAY_TASK_ID=$number sh -c "$4" || exit 1; done
"""


def commands(start: str, language: str = "bash") -> list[str]:
    """Those of all blocks of code that begin so; a block of YAML is one."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = blocks if language != "bash" else [line for b in blocks for line in b.splitlines()]
    found = [line for line in lines if line.startswith(start)]
    assert found, start
    return found


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A working folder with a catalogue `shop` and a model, and what runs a line there."""
    write_tiny_catalogue(tmp_path / "shop", 40)
    schema = load_dataset(str(tmp_path / "shop")).schema
    model = M2Fashion(schema, ModelConfig(backbone="resnet18", stage="layer1", grid=2, dim=16))
    save_checkpoint(tmp_path / "runs/shop/best", model, Preprocessing(size=32), (), {})
    tools = tmp_path / "bin"
    tools.mkdir()
    python = f"#!/bin/sh\nexec '{sys.executable}' -m"
    for name, text in {
        "retrieve": f'{python} retrieval.cli "$@"\n',
        "torchrun": f'{python} torch.distributed.run "$@"\n',
        "ray": f'{python} ray.scripts.scripts "$@"\n',
        "sbatch": SBATCH,
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)

    def run(line: str, more: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            f"{line} {more}", shell=True, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def index(name: str) -> dict[str, bytes]:
    folder = Path("indexes") / name
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.scale
def test_parts_by_slurm_by_kubernetes_and_by_hand(shell: Callable[..., object]) -> None:
    small = "--shard-rows 3"
    shell(f"retrieve build-index --dataset shop --out indexes/whole {small}")
    merge, by_hand = commands("retrieve merge-index")
    (slurm,) = commands("sbatch")
    shell(slurm.replace("16", "3").replace("--part", f"{small} --part"))
    assert len(list(Path("indexes/shop/parts").iterdir())) == 3
    shell(merge, small)
    assert index("shop") == index("whole")
    job = commands("apiVersion", "yaml")[0].replace("16", "3")
    (line,) = re.findall(r'command: \[sh, -c, "(.*)"\]', job)
    (completions,) = re.findall(r"completions: (\d+)", job)
    for number in range(int(completions)):
        shell(f"JOB_COMPLETION_INDEX={number}; {line}", f"{small} --out indexes/job")
    shell(merge, f"{small} --out indexes/job")
    assert index("job") == index("whole")
    for line in commands("retrieve build-index --dataset shop --part 1/2 --out first"):
        shell(line, small)
    for line in commands("retrieve build-index --dataset shop --part 2/2 --out second"):
        shell(line, small)
    shell(by_hand, f"{small} --out indexes/hand")
    assert index("hand") == index("whole")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def started() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """What starts a line that lasts; in the end each is told to end, and does so with its own."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(line: str) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(f"exec {line}", shell=True))
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT)


@pytest.mark.scale
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_on_ray(
    shell: Callable[..., object],
    started: Callable[[str], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")
    shell("retrieve build-index --dataset shop --out indexes/whole --shard-rows 8")
    (local,) = commands("retrieve build-index --dataset shop --ray local")
    shell(local, "--shard-rows 8")
    assert index("shop") == index("whole")
    for line in commands("export"):
        for name, value in re.findall(r"(RAY_\w+)=(\S+)", line):
            monkeypatch.setenv(name, value)
    port = free_port()

    def here(line: str) -> str:
        return line.replace("6379", str(port)).replace("HEAD", "127.0.0.1")

    (head,), (other,) = commands("ray start --head"), commands("ray start --address")
    started(f"{here(head)} --num-cpus 1 --include-dashboard false")
    stop = time.monotonic() + LIMIT
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < stop, "the head does not listen"
        time.sleep(0.2)
    started(f"{here(other)} --num-cpus 1")
    (build,) = commands("retrieve build-index --dataset shop --ray HEAD")
    shell(here(build), "--shard-rows 8 --out indexes/cluster")
    assert index("cluster") == index("whole")


@pytest.mark.scale
def test_training_on_one_machine_and_on_two(
    shell: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "linux":  # whatever the host's name resolves to
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.manual_seed(1)
    save_file(build_backbone("small", "layer3").state_dict(), "small.safetensors")
    small = (
        "--backbone small --stage layer3 --weights small.safetensors --image-size 32 --workers 0 "
        "--epochs 1 --device cpu --batch-size 8 --out runs/"
    )
    (one,) = commands("retrieve train")
    shell(one.replace("--processes 4", "--processes 2"), small + "one")
    (both,) = commands("torchrun")
    both = both.replace("--nproc-per-node 4", "--nproc-per-node 1 --local-addr 127.0.0.1")
    both = both.replace("HEAD:29400", f"127.0.0.1:{free_port()}")
    lines = [f"{both} {small}two"] * 2
    machines = [subprocess.Popen(f"exec {line}", shell=True) for line in lines]
    try:
        assert [machine.wait(LIMIT) for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.kill()
    first, second = (load_checkpoint(Path("runs") / name) for name in ("one", "two"))
    assert first.training["epoch"] == second.training["epoch"] == 1


def test_the_table_follows_from_what_was_measured() -> None:
    results = ROOT / "benchmarks/results"
    speed = json.loads((results / "speed-cpu-2-cores-avx512.json").read_text())
    (stored,) = (
        r for r in speed["rows"] if r["what"].startswith("index bytes") and r["size"] == 1_000_000
    )
    rates = json.loads((results / "runtimes-fashion-products-resnet18-avx512.json").read_text())
    rate = {row["runtime"]: row["images_per_second"] / rates["threads"] for row in rates["rows"]}
    rows = re.findall(r"^\| ([\d,]+000) \|(.*)\|$", PAGE, re.MULTILINE)
    assert [number.count("0") for number, _ in rows] == [6, 7, 8, 9]
    for number, cells in rows:
        images = int(number.replace(",", ""))
        found = [float(re.sub("[^0-9.]", "", cell)) for cell in cells.split("|")]
        wanted = [
            images * stored["floor"] / 1e9,
            images * stored["value"] / 1e9,
            images / rate["onnx"] / 3600,
            images / rate["onnx-int8"] / 3600,
            rows_a_shard(images),
        ]
        assert found == pytest.approx(wanted, rel=0.03)
