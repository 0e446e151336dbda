"""How many threads compute: in trees of control groups laid out by hand, and in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from training import threads as module
from training.errors import UsageError
from training.threads import cores, settle, share, threads

REPOSITORY = Path(__file__).resolve().parents[2]
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OPENBLAS_THREAD_TIMEOUT")
OURS = ("RETRIEVE_THREADS", "OMP_NUM_THREADS", *WAITING)

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

V1, V2 = "cgroup cgroup rw,cpu,cpuacct", "cgroup2 cgroup2 rw"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process where nobody has set or loaded anything, on eight cores, without quotas."""
    for name in OURS:
        monkeypatch.setenv(name, "")  # so that what `settle` writes is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(module, "_PROC", Path("/nowhere"))
    for name in ("torch", "faiss"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def lay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write what a process sees: its groups, `ROOT PLACE KIND` a mount, and quota files."""

    def write(groups: str, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> None:
        proc, place = tmp_path / "proc", tmp_path / "a b"
        proc.mkdir()
        (proc / "cgroup").write_text(groups)
        lines = ["21 1 8:1 / / rw - ext4 /dev/vda rw", "malformed", "1 2 0:3 / /x rw - cgroup"]
        for root, where, kind in mounts:
            escaped = str(place / where).replace(" ", r"\040")
            lines.append(f"31 23 0:28 {root} {escaped} rw,nosuid shared:9 - {kind}")
        (proc / "mountinfo").write_text("\n".join(lines) + "\n")
        for name, text in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        monkeypatch.setattr(module, "_PROC", proc)

    return write


def _v1(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    names = f"{folder}/cpu.cfs_quota_us", f"{folder}/cpu.cfs_period_us"
    return dict(zip(names, (quota, period), strict=True))


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("0::/a/b\n", [("/", "u", V2)], {"u/a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", [("/", "u", V2)], {"u/a/b/cpu.max": "max 100000\n"}, 8),
        # The tightest of a group and those around it, whichever it is; groups beside it are not.
        (
            "0::/a/b\n",
            [("/", "u", V2)],
            {
                "u/cpu.max": "600000 100000\n",
                "u/a/cpu.max": "150000 50000\n",
                "u/a/b/cpu.max": "500000 100000\n",
                "u/c/cpu.max": "100000 100000\n",
            },
            3,
        ),
        # A container: it sees the whole path, its own group is mounted; or one it cannot see.
        ("0::/docker/f\n", [("/docker/f", "u", V2)], {"u/cpu.max": "400000 100000\n"}, 4),
        ("0::/docker/f\n", [("/", "u", V2)], {"u/cpu.max": "400000 100000\n"}, 4),
        ("0::/../f\n", [("/", "u", V2)], {"u/cpu.max": "400000 100000\n", "f/cpu.max": "1 1\n"}, 4),
        ("4:cpu,cpuacct:/a\n", [("/", "c", V1)], _v1("c/a", "250000\n"), 3),
        ("4:cpuacct,cpu:/a\n", [("/", "c", V1)], _v1("c/a", "-1\n") | _v1("c", "50000\n"), 1),
        # Both versions: here version 1 deals out the cores, there version 2.
        (
            "4:cpu:/a\n1:name=systemd:/z\n0::/b\n",
            [("/", "u", V2), ("/", "c", V1), ("/", "s", "cgroup cgroup rw,name=systemd")],
            _v1("c/a", "200000\n") | _v1("s", "100000\n") | {"u/b/cpu.max": "max 100000\n"},
            2,
        ),
        ("0::/b\n3:cpuset:/\n", [("/", "u", V2)], {"u/b/cpu.max": "700000 100000\n"}, 7),
        ("0::/a\n", [("/", "u", V2)], {"u/a/cpu.max": "a few\n"}, 8),
        ("0::/a\n", [("/", "u", V2)], {"u/a/cpu.max": "100000 0\n"}, 8),
        ("0::/a\n", [("/", "u", V2)], {"u/a/cpu.max": "100 100000\n"}, 1),
        ("0::/a\n", [("/", "u", V2)], {"u/a/cpu.max": "6400000 100000\n"}, 8),
        ("4:cpu:/a\n", [("/", "c", V1)], {"c/a/cpu.cfs_quota_us": "100000\n"}, 8),
        ("what\n::\n", [("/", "c", V1), ("/", "u", V2)], {}, 8),
    ],
)
def test_quotas_limit_the_cores(
    lay_out: Callable[..., None],
    groups: str,
    mounts: list[tuple[str, str, str]],
    files: dict[str, str],
    expected: int,
) -> None:
    assert cores() == 8  # nothing can be read
    lay_out(groups, mounts, files)
    assert cores() == threads() == expected


@pytest.mark.parametrize(
    ("ours", "omp", "expected"),
    [
        (None, None, 8), ("3", None, 3), ("3", "5", 3), (None, "5", 5), (None, "5,2", 5),
        ("", " 6 ", 6), (None, "many", 8), (None, "0", 8), (None, "", 8),
    ],
)  # fmt: skip
def test_the_nearest_setting_counts(
    ours: str | None, omp: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("RETRIEVE_THREADS", ours), ("OMP_NUM_THREADS", omp)):
        if text is not None:
            monkeypatch.setenv(name, text)
    assert threads() == expected


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "all", "1,2", "1025"])
def test_a_wrong_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVE_THREADS", text)
    for ask in (threads, settle, lambda: share(2)):
        with pytest.raises(UsageError, match=rf"RETRIEVE_THREADS is '{text}'"):
            ask()


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    settle()
    assert os.environ["OMP_NUM_THREADS"] == "8"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "RETRIEVE_THREADS" not in os.environ
    for name in WAITING:
        monkeypatch.delenv(name)
    theirs = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "active", "OPENBLAS_THREAD_TIMEOUT": "20"}
    for name, text in theirs.items():
        monkeypatch.setenv(name, text)
    settle()
    assert {name: os.environ[name] for name in theirs} == theirs
    assert "GOMP_SPINCOUNT" not in os.environ  # it would go before the policy
    settle(3)
    own = theirs | {"OMP_NUM_THREADS": "3", "RETRIEVE_THREADS": "3"}
    assert {name: os.environ[name] for name in own} == own
    settle()
    assert threads() == 3


def test_loaded_libraries_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library(SimpleNamespace):
        def tell(self, number: int) -> None:
            self.number = number

        def ask(self) -> int:
            return int(self.number)

    torch, faiss = Library(number=4), Library(number=64)
    torch.set_num_threads, torch.get_num_threads = torch.tell, torch.ask
    faiss.omp_set_num_threads, faiss.omp_get_max_threads = faiss.tell, faiss.ask
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    settle()
    assert (torch.number, faiss.number) == (4, 8)  # a lower number may be a user's
    settle(6)
    assert (torch.number, faiss.number) == (6, 6)


def test_processes_share_the_cores_unless_a_number_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settle()  # in the process that starts them
    assert [share(count) for count in (1, 2, 3, 9)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share(2) == 5
    settle(8)
    assert share(2) == 8


def _run(code: str, *, cores: int, **environment: str) -> str:
    """What a process of its own prints, on some cores, where nobody has set anything."""
    clean = {name: text for name, text in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [
            "taskset",
            "-c",
            ",".join(map(str, CORES[:cores])),
            sys.executable,
            "-c",
            "import os, sys\n" + code,
        ],
        env=clean | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


linux = pytest.mark.skipif(len(CORES) < 2, reason="wants taskset, /proc and two cores")


@linux
@pytest.mark.parametrize("package", ["retrieval", "indexer", "training", "benchmarks"])
def test_every_package_settles_before_the_libraries_load(package: str) -> None:
    code = f"import {package}\nprint(os.environ['OMP_NUM_THREADS'], 'numpy' in sys.modules)"
    assert _run(code, cores=2, RETRIEVE_THREADS="1").split() == ["1", "False"]


@linux
@pytest.mark.parametrize(("words", "cores"), [([], 1), (["--threads", "1"], 2)])
def test_a_command_settles_before_the_libraries_load(words: list[str], cores: int) -> None:
    code = (
        "from retrieval.cli import _run\n"
        "from training.threads import threads\n"
        "assert 'numpy' not in sys.modules\n"
        f"assert _run({[*words, 'verify', '/nowhere']}, False) == 3\n"
        "import torch, faiss, numpy\n"
        "torch.ones(600, 600) @ torch.ones(600, 600)\n"
        "numpy.ones((600, 600)) @ numpy.ones((600, 600))\n"
        "numbers = threads(), torch.get_num_threads(), faiss.omp_get_max_threads()\n"
        "print(*numbers, len(os.listdir('/proc/self/task')))"
    )
    assert _run(code, cores=cores).split() == ["1"] * 4  # the last: the process' own thread


@linux
def test_idle_threads_sleep() -> None:
    """Left to themselves, those of numpy and torch would spin some of the 0.2 s after a product."""
    code = (
        "import time, training, numpy, torch\n"
        "a, b, spent = numpy.ones((400, 400)), torch.ones(400, 400), 0.0\n"
        "for _ in range(5):\n"
        "    a @ a; b @ b\n"
        "    start = time.process_time()\n"
        "    time.sleep(0.2)\n"
        "    spent += time.process_time() - start\n"
        "print(spent)"
    )
    assert float(_run(code, cores=2)) < 0.05
