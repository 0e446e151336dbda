"""Work in a child process that may be killed: forked, so that a trial does not import torch anew.

The parent must not have started threads of its own: `one_thread` before anything is computed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from indexer.search.lists import load_faiss
from training.errors import RetrieveError


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        code: its exit code; that of an error as the command line gives it, 1 for a bug; negative:
            the signal that ended it.
        said: the error's message or the traceback; empty without one.
        result: what the work returned, through JSON; None if it did not end by itself.
        hung: whether it had to be killed because its time was up.
    """

    code: int
    said: str
    result: Any
    hung: bool


def one_thread() -> None:
    """Compute with one thread from now on: threads do not survive a fork."""
    torch.set_num_threads(1)
    load_faiss().omp_set_num_threads(1)


def run_forked(
    work: Callable[[], Any], kill_after: float | None = None, limit: float = 300.0
) -> Ended:
    """Do some work in a child process.

    Args:
        work: returns something that JSON can hold.
        kill_after: seconds after which the child is killed (`kill -9`); None: never.
        limit: seconds after which it counts as hung.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    stop = time.monotonic() + (limit if kill_after is None else kill_after)
    parts: list[bytes] = []
    hung = False
    try:
        while True:
            left = stop - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                os.kill(child, signal.SIGKILL)
                hung = kill_after is None
                break
            part = os.read(reading, 1 << 16)
            if not part:
                break
            parts.append(part)
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        answer = json.loads(b"".join(parts))
    except ValueError:
        answer = {"said": "", "result": None}
    return Ended(code, answer["said"], answer["result"], hung)


def _work(work: Callable[[], Any], writing: int) -> None:
    """In the child: never returns."""
    code, said, result = 1, "", None
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = work()
        code = 0
    except RetrieveError as error:
        code, said = error.exit_code, str(error)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        said = traceback.format_exc()
    finally:
        answer = {"said": said.encode("utf-8", "backslashreplace").decode(), "result": result}
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
        os._exit(code)  # no clean-up of what belongs to the parent
