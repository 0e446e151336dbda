"""A process that builds one approximate index and prints the seconds and bytes of memory it took.

    python -m benchmarks.speed.index_memory VECTORS ROWS DIM FACTORY OUT

A process of its own, as view_memory.py. The index is left in OUT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.peak_memory import PeakMemory
from benchmarks.speed.timing import seconds_of
from indexer.approximate import build
from indexer.faiss_module import load_faiss

if __name__ == "__main__":
    _path, _rows, _dim, _factory, _out = sys.argv[1:]
    _vectors = np.memmap(Path(_path), np.float32, "r", shape=(int(_rows), int(_dim)))
    _built: list[Any] = []
    load_faiss()
    with PeakMemory() as _memory:
        _seconds = seconds_of(lambda: _built.append(build(_vectors.view(np.ndarray), _factory)))
    load_faiss().write_index(_built[0], _out)
    print(json.dumps({"seconds": _seconds, "bytes": _memory.anonymous}))
