"""A query, picture and all: from a cold start, with where its seconds go, and in a warm process.

Cold figures are of new processes, in turns with the floor, a process that only imports numpy,
onnxruntime and faiss; the stages are those of one process that does what the command does. Warm
figures are the processor's time, of all threads, for a picture that was not met before.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.measure import Row
from indexer.encode.onnx import open_onnx
from retrieval.engine import Engine
from retrieval.request import Request
from training.checkpoint import onnx_name
from training.errors import ResourceError

_ROUNDS = 7
_PICTURES = 24  # of a warm process
_FLOOR = "import numpy, onnxruntime, faiss"

STAGES = """
import json, sys, time
marks = [("python starts", time.time())]
def mark(name): marks.append((name, time.time()))
from retrieval.cli import cli; from retrieval.commands import query as command
mark("the command line is imported")
import numpy, onnxruntime
mark("numpy and onnxruntime are imported")
from retrieval.engine import Engine; from retrieval.request import Request
mark("the engine is imported")
from pathlib import Path
from indexer.encode.onnx import open_onnx
from indexer.hold.local import open_local
from training.checkpoint import ONNX
held = open_local(Path(sys.argv[2]))
mark("the index is opened")
model = open_onnx(held.read_model(ONNX), ONNX)
mark("the model is read")
held.ready()
engine = Engine(held, model)
mark("descriptors are checked and read")
picture = engine.encode(sys.argv[3])
mark("the picture is encoded")
result = engine.query(Request(picture, [engine.schema.value_names[0]]))
mark("the query is answered")
ends = [float(sys.argv[1])] + [end for _, end in marks]
print(json.dumps([[name, end - start] for (name, end), start in zip(marks, ends)]))
"""


def warm_rows(engine: Engine, pictures: Sequence[Path]) -> list[Row]:
    """Rows of an open index: queries by pictures for its first value, in float32 and in int8."""
    held, value, rows = engine.held, engine.schema.value_names[0], []
    for how in ("float32", "int8"):
        name = onnx_name(how)
        warm = Engine(held, open_onnx(held.read_model(name), name))
        spent = []
        for picture in pictures[:_PICTURES]:
            started = time.process_time()
            warm.query(Request(picture, [value]))
            spent.append(1000 * (time.process_time() - started))
        what = f"a query, picture and all, warm, {how}: processor"
        rows.append(Row(what, len(held), statistics.median(spent), "ms"))
    return rows


def cold_rows(folder: Path, size: int, picture: Path, value: str) -> list[Row]:
    """Rows of an index of `size` images, queried by a picture for a value; raises ResourceError if
    a process fails."""
    words = [*("-m", "retrieval.cli", "query", str(picture)), "--index", str(folder)]
    query, floor = [*words, "--attrs", value, "--device", "cpu"], ["-c", _FLOOR]
    spent, floors, stages = [], [], []
    for number in range(_ROUNDS + 1):
        floors.append(_seconds(floor))
        spent.append(_seconds(query))
        started = ["-c", STAGES, repr(time.time()), str(folder), str(picture)]
        stages.append(dict(json.loads(_output(started))))
        if not number:  # the first finds files that are not in memory yet
            del floors[0], spent[0], stages[0]
    ratio = statistics.median(s / f for s, f in zip(spent, floors, strict=True))
    what, floor_of = "`retrieve query`, cold start", statistics.median(floors)
    rows = [Row(what, size, statistics.median(spent), "s", floor_of, ratio)]
    for name in stages[0]:
        rows.append(Row(f"of it: {name}", size, statistics.median(s[name] for s in stages), "s"))
    return rows


def _seconds(words: list[str]) -> float:
    started = time.perf_counter()
    _output(words)
    return time.perf_counter() - started


def _output(words: list[str]) -> str:
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ResourceError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    return done.stdout
