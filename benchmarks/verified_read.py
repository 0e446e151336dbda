"""`retrieve bench verified-read`: what checking stored maps costs, on a store that is in memory.

The same rows of an index are embedded under one condition without checks, with checks in a store
that was just opened (every row is hashed), and with checks again (every row is known). The three
take turns, so that other work on the machine disturbs all of them alike; the fastest of each is
reported, and the median of the ratios within a round.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.machine import commit_name, machine_name
from benchmarks.write_results import RESULTS, write_results
from retrieval.console import print_json, stdout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.store import Store
    from training.models.conditioned import ConditionedEmbedder

BAR = 0.10
"""What a verified read may cost more, as a share."""

_CHOSEN = 2000  # rows that a query encodes again


@click.command("verified-read")
@click.option("--index", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), help="Only the first so many images.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(index: Path, rows: int | None, rounds: int, out: Path, as_json: bool) -> None:
    """Measure the cost of checking stored maps and views when they are read."""
    from indexer.head import choose_head
    from indexer.store import open_store
    from training.checkpoint import load_checkpoint

    plain = open_store(index, verify=False)
    model = load_checkpoint(plain.model_folder).model
    count = min(len(plain), rows or len(plain))
    chosen = np.random.default_rng(0).permutation(count)[:_CHOSEN]
    every = np.arange(count)
    data: dict[str, Any] = {
        "machine": machine_name("cpu"),
        "commit": commit_name(),
        "images": count,
        "of": len(plain),
        "head": choose_head(model, "cpu", images=count).name,
        "bar": BAR,
        "rows": [
            {"what": f"all {count:,} rows"} | _measured(index, plain, model, every, rounds),
            {"what": f"{len(chosen):,} chosen rows"}
            | _measured(index, plain, model, np.sort(chosen), rounds),
        ],
        "views": _views(index, rounds),
    }
    text = markdown(data)
    stem = re.sub(r"[^a-z0-9]+", "-", data["machine"].lower()).strip("-")
    write_results(out, f"verified-read-{stem}", data, text)
    if as_json:
        print_json(data)
    else:
        stdout.print(text, markup=False, soft_wrap=True)


def _measured(
    index: Path, plain: Store, model: ConditionedEmbedder, rows: NDArray[np.int64], rounds: int
) -> dict[str, Any]:
    """Seconds of one pass: unverified, verified for the first time, verified again."""
    from indexer.head import embed_rows
    from indexer.store import open_store

    condition = model.schema.value_condition([0])

    def one_pass(store: Store) -> float:
        def work() -> None:
            for _ in embed_rows(store, model, [condition], rows):
                pass

        return _seconds(work)

    one_pass(plain)  # kernels are loaded, maps in memory
    times: dict[str, list[float]] = {"unverified": [], "first": [], "again": []}
    for _ in range(rounds):
        times["unverified"].append(one_pass(plain))
        store = open_store(index)
        for shard in store.shards:
            shard.stored  # noqa: B018  # mapped now, as the other's are
        times["first"].append(one_pass(store))
        times["again"].append(one_pass(store))
    return {
        "seconds": {name: min(found) for name, found in times.items()},
        "overhead": {
            name: statistics.median(
                b / a - 1 for a, b in zip(times["unverified"], times[name], strict=True)
            )
            for name in ("first", "again")
        },
    }


def _views(index: Path, rounds: int) -> dict[str, Any]:
    """Seconds to open all views of the index, unverified and verified."""
    from indexer.store import open_store
    from indexer.view import open_view

    def opened(store: Store) -> float:
        return _seconds(lambda: [open_view(store, view.key) for view in store.manifest.views])

    plain, careful = open_store(index, verify=False), open_store(index)
    opened(careful)
    return {
        "count": len(plain.manifest.views),
        "bytes": sum(view.file.size for view in plain.manifest.views),
        "unverified": min(opened(plain) for _ in range(rounds)),
        "verified": min(opened(careful) for _ in range(rounds)),
    }


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def markdown(data: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        f"# What a verified read costs ({data['machine']}, commit {data['commit']})",
        "",
        f"{data['images']:,} images, head {data['head']}, maps in memory; seconds a pass, fastest "
        "of each; overhead: median over rounds.",
        "",
        "| rows | unverified | first verified | overhead | verified again | overhead |",
        "|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        s, o = row["seconds"], row["overhead"]
        lines.append(
            f"| {row['what']} | {s['unverified']:.3f} | {s['first']:.3f} | {o['first']:+.1%} "
            f"| {s['again']:.3f} | {o['again']:+.1%} |"
        )
    views = data["views"]
    lines += [
        "",
        f"{views['count']} views, {views['bytes'] / 1e6:,.0f} MB: opened in "
        f"{views['unverified']:.3f} s unverified, {views['verified']:.3f} s verified.",
        "",
    ]
    return "\n".join(lines)
