"""Every group of rows by the name that `--rows` takes; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.bench import Bench
from benchmarks.speed.cold_rows import cold_rows
from benchmarks.speed.encode_rows import int8_rows, onnx_rows, torch_rows
from benchmarks.speed.exact_rows import exact_rows
from benchmarks.speed.index_rows import index_rows
from benchmarks.speed.kernel_rows import kernel_rows
from benchmarks.speed.memory_rows import memory_rows
from benchmarks.speed.row import Row
from benchmarks.speed.start_rows import start_rows
from benchmarks.speed.view_rows import approximate_rows, view_rows

ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "exact": exact_rows,
    "cold": cold_rows,
    "view": view_rows,
    "approximate": approximate_rows,
    "kernel": kernel_rows,
    "encode": torch_rows,
    "encode-onnx": onnx_rows,
    "encode-onnx-int8": int8_rows,
    "memory": memory_rows,
    "start": start_rows,
    "index": index_rows,
}
