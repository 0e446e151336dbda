"""From the measured constants on to galleries of any size: bytes, nodes and seconds.

    python -m benchmarks.speed.scaling

writes the tables of docs/scaling.md anew, from every results file that is there. A node is a
machine (or a GPU) like the one that was measured; constants are those of the largest size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.exact_rows import EXACT
from benchmarks.speed.index_rows import IVF
from benchmarks.speed.result import commits_of, read_results, rows_of
from benchmarks.speed.row import Row
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.write_results import RESULTS
from training.errors import DataError

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
START, END = "<!-- scaling -->\n", "\n<!-- end -->"

SIZES = (253_983, 1_000_000, 10_000_000, 100_000_000)

USABLE = 0.75
"""Share of a node's memory that holds maps; the rest is for views, the model and the system."""

_COLD = "cold combination, two stages"
_DAY = 86_400.0


@dataclass(frozen=True)
class Constants:
    """What was measured on one machine, all of it on one node; None: not measured.

    Args:
        store_bytes: of an image in the index, views apart.
        view_bytes: of an image in one flat view.
        code_bytes: of an image in an index of codes with lists.
        pass_bytes: read by a pass over the maps, an image.
        bandwidth: bytes a second of a pass.
        tail_flop: floating-point operations of the tail, an image.
        flops: of the tail's matrix products, a second.
        overhead: exact view over (a pass and the products), measured.
        encode_rate: images encoded a second, the best of what was tried.
        encoded_by: the runtime that did.
        cold_ms: a cold combination in two stages, of `cold_size` images.
        cold_size: its gallery.
        index_ms: a search of codes with lists, of `index_size` vectors.
        index_size: its vectors.
        memory: bytes of a node.
    """

    store_bytes: float
    view_bytes: float
    code_bytes: float | None
    pass_bytes: float
    bandwidth: float
    tail_flop: float
    flops: float
    overhead: float
    encode_rate: float | None
    encoded_by: str
    cold_ms: float | None
    cold_size: int
    index_ms: float | None
    index_size: int
    memory: float


@dataclass(frozen=True)
class Scale:
    """A gallery of so many images.

    Args:
        images: N.
        store_bytes: the index without views.
        view_bytes: one flat view.
        code_bytes: one approximate view's codes, ids and centroids.
        nodes: machines that hold the maps in memory together, each a part of the gallery.
        exact_seconds: a new combination, exact, on these nodes.
        nodes_a_second: nodes for an exact new combination within a second.
        cold_ms: a new combination in two stages, on these nodes.
        index_ms: a search of an approximate view on these nodes.
        encode_days: days that one node would encode all images.
    """

    images: int
    store_bytes: float
    view_bytes: float
    code_bytes: float | None
    nodes: int
    exact_seconds: float
    nodes_a_second: int
    cold_ms: float | None
    index_ms: float | None
    encode_days: float | None


def scale(constants: Constants, images: int) -> Scale:
    """Carry the constants on to a gallery of `images`.

    What was not measured stays None. A node's part of a search takes time in proportion to its part
    of the gallery, and never less than what was measured where that part is smaller.
    """
    c = constants
    nodes = math.ceil(images * c.store_bytes / (USABLE * c.memory))
    part = images / nodes
    one = images * c.overhead * (c.pass_bytes / c.bandwidth + c.tail_flop / c.flops)
    return Scale(
        images=images,
        store_bytes=images * c.store_bytes,
        view_bytes=images * c.view_bytes,
        code_bytes=None if c.code_bytes is None else images * c.code_bytes,
        nodes=nodes,
        exact_seconds=one / nodes,
        nodes_a_second=max(nodes, math.ceil(one)),
        cold_ms=None if c.cold_ms is None else c.cold_ms * max(1.0, part / c.cold_size),
        index_ms=None if c.index_ms is None else c.index_ms * max(1.0, part / c.index_size),
        encode_days=None if c.encode_rate is None else images / c.encode_rate / _DAY,
    )


def constants_of(data: dict[str, Any]) -> Constants:
    """The constants of a results file, each from the largest size that was measured.

    Raises:
        DataError: the exact view was not measured.
    """
    rows = rows_of(data)

    def largest(what: str) -> Row | None:
        own = [row for row in rows if row.what == what]
        return max(own, key=lambda row: row.size or 0, default=None)

    exact, cold, lists = largest(EXACT), largest(_COLD), largest(IVF)
    if exact is None or exact.details is None or not exact.size or not exact.bytes_read:
        raise DataError(f"no row {EXACT!r} in the results; run bench speed --rows exact")
    encoding = [row for row in rows if row.what.startswith("encode a gallery")]
    fastest = max(encoding, key=lambda row: row.value, default=None)
    d = {name: float(value) for name, value in exact.details.items()}
    alone = exact.bytes_read / d["pass_bytes_per_second"]
    alone += exact.size * d["tail_flop_per_image"] / d["tail_flop_per_second"]
    codes = None
    if lists is not None and lists.details is not None and lists.size:
        codes = float(lists.details["code_bytes"]) / lists.size
    return Constants(
        store_bytes=_bytes_of_an_image([row for row in rows if row.what == EXACT]),
        view_bytes=d["view_bytes"] / exact.size,
        code_bytes=codes,
        pass_bytes=float(exact.bytes_read) / exact.size,
        bandwidth=d["pass_bytes_per_second"],
        tail_flop=d["tail_flop_per_image"],
        flops=d["tail_flop_per_second"],
        overhead=round(exact.value / alone, 3),
        encode_rate=None if fastest is None else fastest.value,
        encoded_by="" if fastest is None else fastest.what.rpartition(", ")[2],
        cold_ms=None if cold is None else cold.value,
        cold_size=0 if cold is None else cold.size or 0,
        index_ms=None if lists is None else lists.value,
        index_size=0 if lists is None else lists.size or 0,
        memory=float(data["memory"]),
    )


def _bytes_of_an_image(rows: Sequence[Row]) -> float:
    """Of the index without views and without the model, which is as large for any gallery: how it
    grows from the smallest to the largest size; of one size, its share."""
    known = sorted(
        (row.size, float(row.details["store_bytes"]))
        for row in rows
        if row.size and row.details and "store_bytes" in row.details
    )
    if not known:
        raise DataError(
            f"no bytes of the index in the rows {EXACT!r}; run bench speed --rows exact"
        )
    (images, least), (most, whole) = known[0], known[-1]
    return whole / most if most == images else (whole - least) / (most - images)


def tables(data: dict[str, Any], stem: str) -> str:
    """Both tables of the page as Markdown: the constants, and where they lead.

    Args:
        data: a results file's content.
        stem: its name without the ending, which says more of a processor.
    """
    c = constants_of(data)
    inputs = [
        ["bytes of an image in the index (I and P, scales, labels)", _bytes(c.store_bytes)],
        ["bytes of an image that a new combination reads", _bytes(c.pass_bytes)],
        ["bytes of an image in one flat view", _bytes(c.view_bytes)],
        ["bytes of an image in one approximate view", _maybe(c.code_bytes, _bytes)],
        ["bandwidth of one pass over the maps, a second", _bytes(c.bandwidth)],
        ["tail, an image", f"{c.tail_flop / 1e6:.2f} MFLOP"],
        ["the tail's matrix products, a second", f"{c.flops / 1e9:,.0f} GFLOP"],
        ["exact view over the medians of pass and products", f"{c.overhead:.2f}"],
        [f"images encoded a second{_by(c.encoded_by)}", _maybe(c.encode_rate, _rate)],
        [f"search of {_count(c.index_size)}codes with lists", _maybe(c.index_ms, _milliseconds)],
        [
            f"cold combination in two stages, {_count(c.cold_size)}images",
            _maybe(c.cold_ms, _milliseconds),
        ],
        ["memory of a node", _bytes(c.memory)],
    ]
    cells = [_cells(scale(c, images)) for images in SIZES]
    header = ["images", "index", "a flat view", "an approximate view", "nodes for the maps"]
    header += ["new combination, exact", "nodes for that in a second", "in two stages"]
    header += ["approximate view", "encoding"]
    return "\n".join(
        [
            f"Measured on: {data['machine']} ([{stem}](../benchmarks/results/{stem}.md), "
            f"commit {commits_of(data)}).",
            "",
            *markdown_grid(["measured", "value"], inputs),
            "",
            *markdown_grid(header, cells),
        ]
    )


def with_tables(page: str, results: Path) -> str:
    """The page with the tables of every machine that results are there for.

    Raises:
        DataError: a results file lacks the exact view, or the page the marks.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise DataError(f"the page lacks the marks {START.strip()} and {END.strip()}")
    parts = []
    for file in sorted(results.glob("speed-*.json")):
        data = read_results(file)
        assert data is not None, "it was just listed"
        parts.append(tables(data, file.stem))
    return before + start + ("\n\n".join(parts) or "Nothing is measured yet.") + end + after


def _cells(s: Scale) -> list[str]:
    return [
        f"{s.images:,}",
        _bytes(s.store_bytes),
        _bytes(s.view_bytes),
        _maybe(s.code_bytes, _bytes),
        f"{s.nodes:,}",
        f"{s.exact_seconds:,.1f} s",
        f"{s.nodes_a_second:,}",
        _maybe(s.cold_ms, _milliseconds),
        _maybe(s.index_ms, _milliseconds),
        _maybe(s.encode_days, lambda v: f"{v:,.1f} node-days"),
    ]


def _rate(value: float) -> str:
    return f"{value:,.1f}"


def _by(runtime: str) -> str:
    return f", by {runtime}" if runtime else ""


def _count(size: int) -> str:
    return f"{size:,} " if size else ""  # 0: not measured


def _maybe(value: float | None, shown: Callable[[float], str]) -> str:
    return "not measured" if value is None else shown(value)


def _milliseconds(value: float) -> str:
    return f"{value:,.1f} ms"


def _bytes(value: float) -> str:
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "KB")):
        if value >= 10**power:
            return f"{value / 10**power:,.1f} {unit}"
    return f"{value:,.0f} B"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), RESULTS))
