"""Runs argument vectors, one after another, in one process that can change one folder alone.

python -m benchmarks.endurance.argument_worker FOLDER FIRST LAST prints a line of JSON before and
after each vector.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.endurance.argument_vectors import argument_vectors

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink",
    "shutil.rmtree",
}  # fmt: skip


def confine(folder: Path) -> None:
    """Refuse, in this process and for good, to change anything outside of a folder."""
    inside = (str(folder), "/dev/", "/proc/self/")

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if not writes and event not in _CHANGES:
            return
        for path in arguments[:2] if event in _CHANGES else arguments[:1]:
            if isinstance(path, str | bytes | os.PathLike):
                where = os.path.abspath(os.fsdecode(path))
                if not where.startswith(inside):
                    raise PermissionError(13, "outside of the folder that is worked in", where)

    sys.addaudithook(heard)


def run_vector(vector: list[str]) -> dict[str, Any]:
    """Run the command line on one vector, in this process.

    Returns:
        Exit code, what went to standard error, and the seconds that it took.
    """
    from retrieval.cli import _run

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    started = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = _run(vector, debug=False)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    err.flush()
    said = err.buffer.getvalue().decode("utf-8", "replace")
    return {"code": code, "said": said, "seconds": time.monotonic() - started}


def main() -> None:
    """Do what the module's first lines say."""
    folder = Path(sys.argv[1]).resolve()
    os.chdir(folder / "work" / "here")
    confine(folder)
    tell = os.fdopen(os.dup(1), "w", buffering=1)
    for number, vector in argument_vectors(int(sys.argv[2]), int(sys.argv[3])):
        tell.write(json.dumps({"number": number}) + "\n")
        tell.write(json.dumps({"number": number} | run_vector(vector)) + "\n")


if __name__ == "__main__":
    main()
