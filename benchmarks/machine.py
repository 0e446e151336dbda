"""On what and from which commit a figure was measured; never names of folders or hosts."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

CODE = ("training", "indexer", "retrieval", "benchmarks")


def machine_name(device: str) -> str:
    """Such as `x86_64, 2 cores, AVX2, no GPU`, for a device as the commands take it (auto, cpu).

    A processor's widest vector instructions are named since rates differ threefold with them.
    """
    from indexer.device import choose_device

    parts = [platform.machine(), f"{cores()} cores", vector_instructions()]
    return ", ".join([*parts, _accelerator(choose_device(device).device)])


def vector_instructions() -> str:
    """The widest that torch uses on this processor, such as `AVX2` or `AVX512`."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(device: str) -> int:
    """Memory of this machine, or of the GPU that is named."""
    if not device.startswith("cuda"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def commit_name() -> str:
    """The commit of this checkout, short; with `+` if the code was changed since, or `unknown`."""
    commit = _git("rev-parse", "--short", "HEAD")
    if commit is None:
        return "unknown"
    changed = _git("status", "--porcelain", "--", *(f"{room}/*.py" for room in CODE))
    return commit + ("+" if changed else "")


def _accelerator(device: str) -> str:
    if not device.startswith("cuda"):
        return "no GPU"
    import torch

    return str(torch.cuda.get_device_name(device))


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
