"""Fault 29: any argument vector, in a few long-lived processes under a watchdog."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.endurance.argument_vectors import argument_vector
from benchmarks.endurance.outcome import Outcome, outcome
from benchmarks.endurance.small_gallery import SmallGallery, make_gallery

CODES = {0, 2, 3, 4, 5, 6}
"""What a vector may end with."""

_COUNT = 24
_REPOSITORY = Path(__file__).resolve().parents[2]


def argument_trials(
    folder: Path, trials: int, first: int = 0, workers: int = 2, patience: float = 60.0
) -> Outcome:
    """Run `retrieve` on argument vectors number `first` and on.

    Survived: it ends within `patience` with 0 or the code of an expected error, without traceback.

    Args:
        folder: an empty one to work in; nothing outside of it is changed.
        trials: vectors.
        first: number of the first one.
        workers: processes.
        patience: seconds without an answer after which a vector counts as hung.
    """
    cuts = [first + trials * n // workers for n in range(workers + 1)]
    places = [folder / f"worker-{n}" for n in range(workers)]
    _make_place(places[0])
    for place in places[1:]:
        shutil.copytree(places[0], place, symlinks=True)
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(
            lambda n: list(_run_all(places[n], cuts[n], cuts[n + 1], patience)), range(workers)
        )
        return outcome("29: any argument vector", [trouble for part in parts for trouble in part])


def _make_place(place: Path) -> None:
    """`work/here`, where commands are run: two folders deep, so that `..` stays inside."""
    here = place / "work" / "here"
    gallery = make_gallery(here, _COUNT)
    (gallery.shop / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (here / "runs").mkdir()
    gallery.model.rename(here / "runs" / "shop")
    moved = SmallGallery(here)
    (here / "model").symlink_to("runs/shop")
    moved.build(here / "indexes" / "shop")
    (place / "home").mkdir()


def _run_all(place: Path, first: int, last: int, patience: float) -> Iterator[str | None]:
    """What went wrong with each vector; a process that hangs or dies is replaced."""
    while first < last:
        for line in _answers(place, first, last, patience):
            first = line["number"] + 1
            yield _trouble(line)


def _answers(place: Path, first: int, last: int, patience: float) -> Iterator[dict[str, Any]]:
    """One answer a vector, until the process ends, hangs or has done all of them."""
    command = [sys.executable, "-m", "benchmarks.endurance.argument_worker", str(place)]
    home = {"HOME": str(place / "home"), "OMP_NUM_THREADS": "1", "TMPDIR": str(place)}
    process = subprocess.Popen(
        [*command, str(first), str(last)],
        cwd=_REPOSITORY,
        env=os.environ | home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: queue.Queue[str] = queue.Queue()
    errors: list[str] = []
    threading.Thread(target=_pour, args=(process.stdout, lines.put), daemon=True).start()
    threading.Thread(target=_pour, args=(process.stderr, errors.append), daemon=True).start()
    current, wait = first, 10 * patience  # imports come first
    try:
        while current < last:
            try:
                line = lines.get(timeout=wait)
            except queue.Empty:
                yield {"number": current, "code": -1, "said": f"hung for {patience:.0f} s"}
                return
            if not line:
                said = f"the process ended: {''.join(errors)[-500:]}"
                yield {"number": current, "code": -1, "said": said}
                return
            answer = json.loads(line)
            wait = patience
            if "code" in answer:
                current = answer["number"] + 1
                yield answer
    finally:
        process.kill()
        process.wait()


def _pour(stream: Any, into: Any) -> None:
    for line in stream:
        into(line)
    into("")


def _trouble(answer: dict[str, Any]) -> str | None:
    code, said = answer["code"], str(answer["said"])
    right = code in CODES and "Traceback" not in said and "internal error" not in said
    if right and (code == 0 or said):
        return None
    return f"{argument_vector(answer['number'])!r}: {code} {said[-500:]}"
