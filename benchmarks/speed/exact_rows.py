"""`exact view, new combination`: the whole gallery under a condition without a view."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import torch

from benchmarks.speed.bench import Bench, new_conditions
from benchmarks.speed.floors import (
    copies,
    maps_bytes,
    one_pass,
    tail_flop,
    tail_gemms,
    values_spoken_of,
)
from benchmarks.speed.measured_calls import exact_view, exact_view_there
from benchmarks.speed.measured_process import output_of
from benchmarks.speed.row import Row
from benchmarks.speed.timing import paired, seconds_of

EXACT = "exact view, new combination"

_ON_CPU = "one pass over the maps, then the tail's matrix products alone"
_ON_GPU = "reading the maps once at the bandwidth of copying"


def exact_rows(bench: Bench) -> list[Row]:
    """A row a size.

    On a CPU the floor is one pass over the maps and the tail's products, both alone; on a GPU,
    whose cores wait for its memory, the pass at the bandwidth of copying.
    """
    return [_row(bench, size) for size in bench.sizes]


def _row(bench: Bench, size: int) -> Row:
    engine = bench.engine(size)
    conditions = new_conditions(engine.schema, bench.repeats, bench.seed)
    on_cpu, read = bench.device == "cpu", maps_bytes(engine.store)
    named = [values_spoken_of(engine.schema, condition) for condition in conditions]
    gemms = [tail_gemms(engine.model, size, bench.device, values) for values in named]
    copy = None if on_cpu else copies(read, bench.device)
    passes: list[float] = []
    tails: list[float] = []

    def floor(number: int) -> None:
        passes.append(seconds_of(copy or (lambda: one_pass(engine.store))))
        if on_cpu:
            tails.append(seconds_of(gemms[number]))

    further: dict[str, float] = {}
    if on_cpu:
        times = paired(lambda n: exact_view(engine, conditions[n]), floor, bench.repeats)
        alone, products = passes[1:], tails[1:]  # those that were timed
    else:
        out = torch.empty(size, engine.store.dim, device=bench.device)
        times = paired(lambda n: exact_view_there(engine, conditions[n], out), floor, bench.repeats)
        alone, products = passes[1:], [seconds_of(own) for own in gemms]
        copied = paired(lambda n: exact_view(engine, conditions[n]), floor, bench.repeats)
        further["seconds_with_copy_to_main_memory"] = copied.value
    one, tail = median(alone), median(products)
    flop = median(tail_flop(engine.model, values) for values in named)
    manifest = engine.store.manifest
    views = sum(entry.size for entry in manifest.view_files)
    return Row(
        what=EXACT,
        size=size,
        value=times.value,
        unit="s",
        floor=times.floor,
        ratio=times.ratio,
        against=_ON_CPU if on_cpu else _ON_GPU,
        repeats=bench.repeats,
        bytes_read=read,
        peak_bytes=_peak(engine.store.folder, bench.device),
        details={
            "images_per_second": size / times.value,
            "pass_seconds": one,
            "pass_bytes_per_second": read / one,
            "tail_seconds": tail,
            "tail_flop_per_image": flop,
            "tail_flop_per_second": flop * size / tail,
            "store_bytes": sum(entry.size for entry in manifest.files) - views,
            "view_bytes": size * engine.store.dim * 4,
            **further,
        },
    )


def _peak(index: Path, device: str) -> int:
    """Most anonymous memory that a process takes for one view, once the index is open."""
    return int(output_of(["-m", "benchmarks.speed.view_memory", str(index), device]))
