"""A process that computes one new view and prints the bytes of memory that it took.

    python -m benchmarks.speed.view_memory INDEX DEVICE

A process of its own: one that has worked before keeps freed memory, which would hide it.
"""

from __future__ import annotations

import sys

from benchmarks.speed.bench import new_conditions
from benchmarks.speed.measured_calls import exact_view
from benchmarks.speed.peak_memory import PeakMemory
from retrieval.engine import Engine

if __name__ == "__main__":
    _index, _device = sys.argv[1:]
    _engine = Engine.open(_index, _device)
    (_condition,) = new_conditions(_engine.schema, 1, 0)
    with PeakMemory() as _memory:
        exact_view(_engine, _condition)
    print(_memory.anonymous)
