"""How many threads compute: one number for torch, OpenMP, BLAS, faiss and pools of our own.

It is `$RETRIEVE_THREADS` (`retrieve --threads N`), else `$OMP_NUM_THREADS`, else what this process
may use: the cores that it may run on, and the CPU quota of its container, of which the libraries
know nothing: on a machine of 64 cores they start 64 threads to share the time of one.

Threads that have nothing to do sleep. By default libgomp's (torch, faiss) spin for some 5 ms after
a parallel loop and OpenBLAS' (numpy) for 130 ms, on cores that others could use; here for less than
0.1 ms, which covers the gap between two loops of a training step: to be woken costs about as much.

Nothing that computes is imported here: the libraries read their environment when they load.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from training.errors import UsageError

VARIABLE = "RETRIEVE_THREADS"
MOST = 1024
"""Threads: more is a slip of the pen."""

_PROC = Path("/proc/self")

_OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How idle threads wait: libgomp turns round so often and then sleeps, others sleep."""

_OPENBLAS = {"OPENBLAS_THREAD_TIMEOUT": "10"}
"""It waits 2^10 cycles for more work, not 2^28, and then sleeps."""


def settle(count: int | None = None) -> None:
    """Have the libraries that are still to load take `threads()`, and let their idle threads sleep.

    Called as package `training` is imported, which every package of ours imports first, and by
    `retrieve`. It writes to `os.environ`, for child processes too: `count` to `$RETRIEVE_THREADS`,
    the number to `$OMP_NUM_THREADS`, which torch, faiss and numpy follow, and how to wait. A
    variable that is set stays, but that `$RETRIEVE_THREADS` goes before `$OMP_NUM_THREADS`.

    A torch or faiss that is loaded already is told the number if `$RETRIEVE_THREADS` is set, or if
    it would use more than `cores()`; how its threads wait, and how many numpy has, stays.

    Raises UsageError: as `threads`.
    """
    if count is not None:
        os.environ[VARIABLE] = str(count)
    for how in (_OPENMP, _OPENBLAS):
        if not how.keys() & os.environ.keys():  # either of libgomp's says it
            os.environ.update(how)
    number, wanted = threads(), bool(os.environ.get(VARIABLE))
    if wanted:
        os.environ["OMP_NUM_THREADS"] = str(number)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(number))
    torch, faiss = sys.modules.get("torch"), sys.modules.get("faiss")
    if torch is not None and (wanted or torch.get_num_threads() > cores()):
        torch.set_num_threads(number)
    if faiss is not None and (wanted or faiss.omp_get_max_threads() > cores()):
        faiss.omp_set_num_threads(number)


def threads() -> int:
    """`$RETRIEVE_THREADS`, else `$OMP_NUM_THREADS` (the first of its numbers, one a nesting level),
    else `cores()`: where the former is empty, or the latter no number from 1 on.

    Raises UsageError: `$RETRIEVE_THREADS` is no number from 1 to 1024.
    """
    given = os.environ.get(VARIABLE)
    if given:
        number = _number(given)
        if number is None or number > MOST:
            raise UsageError(f"${VARIABLE} is {given!r}; set it to a number from 1 to {MOST}")
        return number
    return _number(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]) or cores()


def share(processes: int) -> int:
    """Threads of each of so many processes of ours on one machine: all together use `cores()`, at
    least one each; unless another number is set, which is that of each."""
    number = threads()
    found = number == cores() and not os.environ.get(VARIABLE)
    return max(1, number // processes) if found else number


def cores() -> int:
    """How many cores this process may use, at least 1: those that it may run on, or as many as its
    control groups, version 1 or 2, grant it the time of, rounded up."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *map(ceil, _quotas())]))


def _number(text: str) -> int | None:
    """A whole number from 1 on, or None."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if number > 0 else None


def _quotas() -> Iterator[float]:
    """What the own control group and those around it, as far as they are mounted, grant: cores."""
    own = _own_groups()
    for line in _lines(_PROC / "mountinfo"):
        # 31 23 0:28 ROOT PLACE OPTIONS [TAGS] - TYPE SOURCE OPTIONS
        before, _, after = line.partition(" - ")
        here, kind = before.split(" "), after.split(" ")
        if len(here) < 5 or len(kind) < 3:
            continue
        version = {"cgroup2": 2, "cgroup": 1}.get(kind[0])
        if version is None or (version == 1 and "cpu" not in kind[2].split(",")):
            continue
        root, place = (Path(_unescaped(text)) for text in here[3:5])
        path = own.get(version, Path("/"))
        # A container sees its own group as the root, or a path of a tree that it does not see.
        inside = path.relative_to(root) if path.is_relative_to(root) else Path()
        if ".." in inside.parts:
            inside = Path()
        for folder in (place / inside, *(place / parent for parent in inside.parents)):
            quota = _quota(folder, version)
            if quota is not None:
                yield quota


def _own_groups() -> dict[int, Path]:
    """This process' group by version: of version 1 that of the hierarchy that deals out cores."""
    found = {}
    for line in _lines(_PROC / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number, controllers) == ("0", ""):
            found[2] = Path(path)
        elif "cpu" in controllers.split(","):
            found[1] = Path(path)
    return found


def _quota(folder: Path, version: int) -> float | None:
    """Cores that a group may use the time of; None: all, or it cannot be told."""
    if version == 2:
        words = " ".join(_lines(folder / "cpu.max")).split()
    else:
        files = (folder / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
        words = [word for file in files for word in " ".join(_lines(file)).split()]
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # `max`, or -1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(text: str) -> str:
    r"""A path in mountinfo, where a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
