"""`retrieve views`: which views an index has, what they cost and what searches them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from retrieval.console import print_json, print_table, stderr, table_width
from retrieval.index_folder import only_index
from retrieval.names import split_names
from retrieval.printable import printable
from training.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.store import Store
    from indexer.views import NamedCondition
    from indexer.warm_views import WarmViews
    from retrieval.view_list import ListedView
    from training.models.embedder import Embedder

_CHUNK = 8192  # rows embedded at a time: 16 MB of 512 floats
_GB = 1e9


@click.command("views")
@click.argument("index", type=click.Path(path_type=Path), required=False)
@click.option("--add", multiple=True, metavar="A,B", help="Compute the view of these values now.")
@click.option("--without", multiple=True, metavar="C,D", help="With --add: values marked absent.")
@click.option(
    "--like", multiple=True, metavar="ATTRIBUTE", help="Attributes to compare by; adds their view."
)
@click.option("--drop", multiple=True, metavar="KEY|NAME", help="Remove a warm view.")
@click.option("--clear", is_flag=True, help="Remove all warm views.")
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    default=4.0,
    show_default=True,
    metavar="GB",
    help="What all warm views together may take on the disk.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    index: Path | None,
    add: tuple[str, ...],
    without: tuple[str, ...],
    like: tuple[str, ...],
    drop: tuple[str, ...],
    clear: bool,
    budget: float,
    device: str,
    as_json: bool,
) -> int:
    """List the views of INDEX [default: the one in indexes/]; add or remove warm ones.

    \b
    retrieve views --add v-neckline,floral
    retrieve views --drop v-neckline,floral

    A view is the gallery's embeddings under one condition. Those of build-index stay; warm ones
    were computed for a query, or by --add, and the least recently used go when the budget is full.
    """
    present, absent = split_names("--add", add), split_names("--without", without)
    types = split_names("--like", like)
    if not math.isfinite(budget):
        raise UsageError(f"--budget {budget} is no number of GB")
    if clear and drop:
        raise UsageError("--clear removes every warm view; leave --drop out")
    folder = only_index("INDEX") if index is None else index

    from indexer.store import open_store
    from indexer.warm_views import WarmViews
    from retrieval.view_list import list_views

    store = open_store(folder)
    for remark in store.remarks:
        _say(remark)
    warm = WarmViews(folder, store.manifest.content, round(budget * _GB))
    if clear:
        _say(f"{warm.clear()} warm views removed")
    for word in drop:
        _drop(warm, store, word)
    if present or absent or types:
        _add(warm, store, present, absent, types, device)
    listed = list_views(store, warm)
    if as_json:
        print_json(_to_json(folder, listed, warm))
    else:
        print_table(_table(folder, listed, warm))
    return 0


def _add(
    warm: WarmViews,
    store: Store,
    present: list[str],
    absent: list[str],
    types: list[str],
    device: str,
) -> None:
    from indexer.views import named

    wanted = named(store.schema, store.schema.condition(present, absent, types))
    if store.view(wanted.key) is not None:
        _say(f"{wanted.name}: built ahead already")
        return
    if warm.load(wanted.key) is not None:
        _say(f"{wanted.name}: warm already")
        return
    needed = len(store) * store.dim * 4
    if needed > warm.budget_bytes:
        raise UsageError(
            f"a view of this index takes {needed / _GB:.3g} GB, more than --budget "
            f"{warm.budget_bytes / _GB:g}; give a larger one"
        )

    from indexer.device import choose_device
    from indexer.indexable import check_indexable
    from training.checkpoint import load_checkpoint

    choice = choose_device(device)
    if choice.remark:
        _say(choice.remark)
    model = load_checkpoint(store.model_folder, choice.device).model
    check_indexable(model)
    started = time.monotonic()
    parts = _embedded(store, model, wanted, choice.device)
    kept = warm.save(wanted, parts, rows=len(store))
    if not kept.kept:
        raise ResourceError(f"the view was not kept: {kept.why}")
    _say(f"{wanted.name}: computed in {time.monotonic() - started:.1f} s and kept")


def _embedded(
    store: Store, model: Embedder, wanted: NamedCondition, device: str
) -> Iterator[NDArray[np.float32]]:
    from indexer.views import embed

    for start in range(0, len(store), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(store)))
        yield embed(store, model, wanted.condition, rows, device=device)


def _drop(warm: WarmViews, store: Store, word: str) -> None:
    entries = {e.key: e.key for e in warm.list()} | {e.name: e.key for e in warm.list()}
    key = entries.get(word.strip()) or entries.get(_key_of(store, word) or "")
    if key is not None:
        warm.drop(key)
        _say(f"{word}: removed")
        return
    if word in {text for view in store.manifest.views for text in (view.key, view.name)}:
        raise UsageError(
            f"--drop {word!r}: that view was built ahead and belongs to the index; build one with "
            "fewer --views into another folder to be without it"
        )
    there = ", ".join(repr(entry.name) for entry in warm.list()[:5]) or "none"
    raise UsageError(f"--drop {word!r}: no warm view has that key or name; warm views: {there}")


def _key_of(store: Store, word: str) -> str | None:
    """Key of the condition of names as --add takes them; None if they are no values."""
    from indexer.views import condition_key

    try:
        return condition_key(store.schema.condition(split_names("--drop", (word,))))
    except UsageError:
        return None


def _say(text: str) -> None:
    stderr.print(printable(text), markup=False, soft_wrap=True)


def _to_json(folder: Path, listed: list[ListedView], warm: WarmViews) -> dict[str, Any]:
    return {
        "index": str(folder),
        "views": [view.to_json() for view in listed],
        "bytes": sum(view.bytes for view in listed),
        "warm_bytes": sum(view.bytes for view in listed if view.kind == "warm"),
        "warm_budget_bytes": warm.budget_bytes,
    }


def _table(folder: Path, listed: list[ListedView], warm: WarmViews) -> Table:
    total = sum(view.bytes for view in listed)
    used = sum(view.bytes for view in listed if view.kind == "warm")
    title = (
        f"{folder}   {len(listed)} views, {total / 1e6:,.1f} MB; "
        f"warm: {used / 1e6:,.1f} of {warm.budget_bytes / 1e6:,.0f} MB"
    )
    columns = [column for column in _COLUMNS if column.narrow or table_width() >= _WIDE]
    left_out = [column.heading for column in _COLUMNS if column not in columns]
    caption = f"{', '.join(left_out)}: on {_WIDE} columns, or with --json" if left_out else None
    table = Table(title=Text(printable(title), style="bold"), title_justify="left", caption=caption)
    for column in columns:
        if column.heading == "condition":
            table.add_column(column.heading, overflow="fold", ratio=2)
        else:
            table.add_column(
                column.heading, no_wrap=True, justify="right" if column.number else "left"
            )
    for view in listed:
        table.add_row(*(Text(printable(column.cell(view))) for column in columns))
    return table


@dataclass(frozen=True)
class _Column:
    heading: str
    cell: Callable[[ListedView], str]
    number: bool = False
    narrow: bool = True  # shown on a terminal of 80 columns too


_WIDE = 120  # columns that all of these need
_COLUMNS = (
    _Column("key", lambda view: view.key, narrow=False),
    _Column("condition", lambda view: view.name),
    _Column("kind", lambda view: view.kind),
    _Column("rows", lambda view: f"{view.rows:,}", number=True),
    _Column("MB", lambda view: f"{view.bytes / 1e6:,.1f}", number=True),
    _Column("searched with", lambda view: view.searched_with),
    _Column(
        "recall@10", lambda view: "1" if view.recall is None else f"{view.recall:.3f}", number=True
    ),
    _Column(
        "seconds",
        lambda view: "-" if view.seconds is None else f"{view.seconds:.1f}",
        number=True,
        narrow=False,
    ),
    _Column(
        "last used",
        lambda view: "-" if view.last_used is None else f"{view.last_used:%Y-%m-%d %H:%M}",
        narrow=False,
    ),
)
