"""Encoding shards on Ray: a task a shard, on any node of a cluster; the driver commits them.

A task writes a shard's file and gives back its entry. It may be run again, even twice at once,
since the file is named by its content and appears whole; Ray does so when a worker or a node dies.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

from indexer.build.shards import Done, EncodedImages, ShardWork, Work
from indexer.build.version import OneProcess
from indexer.encode.encode import Forward
from indexer.encode.forward import Runtime, choose_forward
from indexer.progress import Progress, Silent
from indexer.store.manifest import PARTS_NAME, FileEntry, Manifest, ShardEntry
from training.checkpoint import load_checkpoint
from training.device import keep_freed_memory
from training.errors import DataError, ResourceError, RetrieveError, UsageError
from training.files import remove_temporaries, temporary_file
from training.threads import settle, threads

LOCAL, AUTO = "local", "auto"  # this machine; the cluster that this machine is a node of

_TRIES = 8  # more than that a shard is lost by chance only on machines that nobody can use
_PATIENCE = 120  # seconds for a node's first answer


@dataclass(frozen=True)
class How:
    """What encodes on every node."""

    runtime: Runtime
    precision: str
    device: str  # `cpu`: a task a core; `cuda`: a task a GPU
    batch_size: int | None
    workers: int | None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"Ray chooses which GPU: --device cuda, not {self.device}")


@dataclass(frozen=True)
class OnRay:
    """`Means` that are a Ray cluster: the one at an address, or `local`, for as long as it takes,
    of this machine."""

    address: str
    how: How
    progress: Progress

    def encode(self, folder: Path, draft: Manifest, todo: Work, committed: Done) -> None:
        """See `Means`; in any order.

        Raises UsageError if what is said on the cluster's ports would be believed to anybody,
        ResourceError if a node does not see `folder`, cannot be joined, or no task is ever
        finished; DataError if one does not see the pictures; and what a task raises.
        """
        if not todo.missing:
            return OneProcess(_no_model, self.progress).encode(folder, draft, todo, committed)
        ray = _load(self.address)
        try:
            with _joined(ray, self.address):
                self._run(ray, Job(folder.resolve(), draft, self.how, 1), todo, committed)
        finally:
            remove_temporaries(folder, PARTS_NAME)  # of workers that were killed

    def _run(self, ray: Any, job: Job, todo: Work, committed: Done) -> None:
        cpus, nodes = _places(ray, self.how.device)
        slots = sum(nodes.values())
        if not slots:
            what = "GPU" if self.how.device == "cuda" else "core"
            raise ResourceError(f"no node of the Ray cluster {self.address} has a {what}")
        _check_nodes(ray, [*nodes], job.folder, Path(job.draft.root), todo.paths)
        self.progress.say(f"Ray encodes {slots} shards at a time (nodes: {len(nodes)})")
        self.progress.start("images", todo.missing)
        gpus = int(self.how.device == "cuda")
        shared = ray.put(replace(job, cpus=cpus))
        task = ray.remote(encode_shard).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=_TRIES, retry_exceptions=False
        )
        waiting, running, told = deque(todo.work), dict[Any, ShardWork](), set[str]()
        while waiting or running:
            while waiting and len(running) < 2 * max(1, slots):
                work = waiting.popleft()
                files, images = todo.encoded.only(work.images)
                running[task.remote(shared, replace(work, images=images), files)] = work
            (done,), _ = ray.wait([*running], num_returns=1)
            work = running.pop(done)
            entry, said = _result(ray, done, f"shard {work.plan.number}")
            for line in said:
                if line not in told:
                    told.add(line)
                    self.progress.say(line)
            committed(work.plan.number, entry)
            self.progress.advance(len(work.missing))
            slots = sum(_places(ray, self.how.device)[1].values())  # nodes come and go


@dataclass(frozen=True)
class Job:
    """What all tasks of a build are told."""

    folder: Path  # of the index
    draft: Manifest
    how: How
    cpus: int  # of a task


def encode_shard(job: Job, work: ShardWork, files: list[FileEntry]) -> tuple[ShardEntry, list[str]]:
    """Write one shard; its entry, and what a person should know. `work.images` are numbers of
    those in `files`, shards of before."""
    settle(job.cpus)
    keep_freed_memory()
    said, entries = _Said(), list[ShardEntry]()
    model = str(job.folder / Path(job.draft.model_files[0].name).parent)

    def open_model() -> Forward:
        return _model(model, job.how)

    means = OneProcess(open_model, said, job.how.batch_size, job.how.workers)
    todo = Work(work.plan.paths, {}, [work], EncodedImages(job.folder, files))
    means.encode(job.folder, job.draft, todo, lambda _, entry: entries.append(entry))
    return entries[0], said.lines


@lru_cache(1)  # a worker process encodes many shards
def _model(folder: str, how: How) -> Forward:
    return choose_forward(
        load_checkpoint(Path(folder), how.device), how.runtime, how.precision, how.device
    )


class _Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        """Keep it for the driver."""
        self.lines.append(message)


def _no_model() -> Forward:
    raise AssertionError("nothing is encoded")


def _load(address: str) -> Any:
    """Ray, which takes these variables from the environment as it is loaded."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ["RAY_AUTH_MODE"] = "token"  # for nobody else on this machine, or near it
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_worker_niceness", "0")  # as one process has it
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        # On 127.0.0.1 too: whatever its address, Ray listens on every interface of a machine.
        raise UsageError(
            "whoever reaches the ports of a Ray cluster can run programs on it: start every node "
            "with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (or ~/.ray/auth_token), and set both "
            "here, too"
        )
    try:
        import ray
    except ImportError as error:
        raise ResourceError(
            'Ray is not installed (pip install "m2fashion-retrieval[ray]")'
        ) from error
    return ray


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    """Be a driver of the cluster; when that ends, so do its tasks."""
    own = {"num_cpus": threads(), "include_dashboard": False} if address == LOCAL else {}
    if address not in (LOCAL, AUTO):
        _check_listens(address)  # Ray itself tries for minutes
    main = threading.current_thread() is threading.main_thread()
    before, ended = signal.getsignal(signal.SIGTERM), list[SystemExit]()

    def terminated(number: int, frame: FrameType | None) -> None:
        """Keep what says why: Ray, where it waits, makes an exit of its own of it."""
        try:
            before(number, frame)  # type: ignore[operator,misc]
        except SystemExit as error:
            ended.append(error)
            raise

    # What Ray tells of lost workers it prints; but standard output is for results.
    with redirect_stdout(sys.stderr):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = str(error).strip().splitlines() or [type(error).__name__]
            raise ResourceError(f"cannot join the Ray cluster {address}: {why[0]}") from error
        try:
            if main:  # Ray has taken it
                signal.signal(signal.SIGTERM, terminated if callable(before) else before)
            yield
        except SystemExit:
            if ended:
                raise ended[0] from None
            raise
        finally:
            ray.shutdown()
            if main:
                signal.signal(signal.SIGTERM, before)


def _check_listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(f"{address!r} is no Ray cluster; give HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(f"cannot join the Ray cluster {address}: {error}") from error


def _places(ray: Any, device: str) -> tuple[int, dict[tuple[str, str], int]]:
    """Cores of a task, and how many tasks fit at once on each node, by its id and address."""
    nodes = [(n, n["Resources"]) for n in ray.nodes() if n["Alive"]]
    counts = [(n, int(has.get("CPU", 0)), int(has.get("GPU", 0))) for n, has in nodes]
    cpus = 1
    if device == "cuda":
        cpus = max(1, min((cores // gpus for _, cores, gpus in counts if gpus), default=1))
        counts = [(n, min(cores, cpus * gpus), gpus) for n, cores, gpus in counts]
    found = {(n["NodeID"], n["NodeManagerAddress"]): cores // cpus for n, cores, _ in counts}
    return cpus, {node: count for node, count in found.items() if count}


def look(paths: list[Path]) -> list[str]:
    """SHA-256 of some files, or why they cannot be read."""
    found = []
    for path in paths:
        try:
            found.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            found.append((error.strerror or str(error)).lower())
    return found


def _check_nodes(
    ray: Any, nodes: list[tuple[str, str]], folder: Path, root: Path, listed: Any
) -> None:
    """Raise ResourceError or DataError unless every node that is still there sees what is written
    here, and the first of the listed pictures."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    gone = (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError)
    picture = next((root / path for path in listed if (root / path).is_file()), root)
    with temporary_file(folder) as nonce:
        nonce.write_text(secrets.token_hex(16))
        here, asked = look([nonce, picture]), []
        for node, _ in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(look).options(num_cpus=0, scheduling_strategy=there)
            asked.append(task.remote([nonce, picture]))
        for (node, address), answer in zip(nodes, asked, strict=True):
            where = f"Ray's node {address} ({node[:8]})"
            try:
                written, seen = _result(ray, answer, where, _PATIENCE)
            except ResourceError as error:
                if isinstance(error.__cause__, gone):  # it died a moment ago: it gets no task
                    continue
                raise
            if written != here[0]:
                raise ResourceError(
                    f"{where} does not see what is written to {folder} ({written}): all nodes "
                    "have to share its file system"
                )
            if seen != here[1]:
                raise DataError(
                    f"{where} does not see the picture {picture} as it is here ({seen}): give all "
                    "nodes the pictures at the same path"
                )


def _result(ray: Any, task: Any, what: str, timeout: float | None = None) -> Any:
    """What a task gives; raises what it raises, and ResourceError if it comes to no end."""
    try:
        return ray.get(task, timeout=timeout)
    except ray.exceptions.RayTaskError as error:
        if timeout is None or isinstance(error.cause, RetrieveError):
            raise error.cause from None
        raise ResourceError(f"{what} cannot run this program: {error.cause}") from error
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[0]
        raise ResourceError(f"Ray, {what}: {type(error).__name__}: {why}") from error
