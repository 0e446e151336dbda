"""Views: the gallery's embeddings under one condition, as files or computed on demand."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.atomic import temporary_file
from indexer.flat_file import FlatFileWriter
from indexer.head import choose_head, embed_arrays, embed_rows
from indexer.manifest import ViewEntry
from indexer.progress import Progress, Silent
from indexer.store import Rows, Store
from indexer.store_file import commit_file
from training.errors import ResourceError, UsageError
from training.models.embedder import Embedder
from training.schema import Condition, Schema

VIEW_SETS = ("types", "values", "none", "all")

FILES_A_PASS = 64
"""Views written in one pass over the store: a bound on open files."""


@dataclass(frozen=True)
class NamedCondition:
    """A condition with its key and its name in words."""

    key: str
    name: str
    condition: Condition


def condition_key(condition: Condition) -> str:
    """Short name of a condition: the first 16 hexadecimal digits of its bytes' SHA-256."""
    return hashlib.sha256(np.asarray(condition, dtype=np.int8).tobytes()).hexdigest()[:16]


def named(schema: Schema, condition: Condition) -> NamedCondition:
    """A condition with its key and name."""
    return NamedCondition(condition_key(condition), schema.describe(condition), condition)


def conditions_of(schema: Schema, sets: Sequence[str]) -> list[NamedCondition]:
    """The conditions of named sets, each once.

    Args:
        schema: the model's.
        sets: of `types` (every type condition), `values` (every single value), `none` (the
            all-unknown condition) and `all` (the three together).

    Raises:
        UsageError: another name.
    """
    wanted = set(sets)
    unknown = wanted - set(VIEW_SETS)
    if unknown:
        raise UsageError(
            f"unknown views {', '.join(sorted(unknown))!r}; choose from {', '.join(VIEW_SETS)}"
        )
    out: list[Condition] = []
    if wanted & {"types", "all"}:
        out += [schema.type_condition(number) for number in range(len(schema.attributes))]
    if wanted & {"values", "all"}:
        out += [schema.value_condition([value]) for value in range(schema.size)]
    if wanted & {"none", "all"}:
        out.append(schema.condition())
    # The type condition of an attribute with one value is that value's condition.
    return list({entry.key: entry for entry in (named(schema, c) for c in out)}.values())


def embed(
    store: Store,
    model: Embedder,
    condition: Condition,
    rows: Rows | None = None,
    device: str = "cpu",
    head: str = "auto",
    chunk: int | None = None,
) -> NDArray[np.float32]:
    """Embed stored images under a condition that may have no view.

    Args:
        store: the index.
        model: its model, on `device`.
        condition: label states [K].
        rows: rows of the index, in the order of the result; all of them by default.
        device: where the model is.
        head: see `indexer.head.choose_head`.
        chunk: images at a time; what is fastest by default.

    Returns:
        Unit vectors [M, d] float32.
    """
    if isinstance(rows, slice):
        rows = np.arange(len(store))[rows]
    return embed_arrays(store, model, [condition], rows, device, head, chunk)[0]


def write_views(
    store: Store,
    model: Embedder,
    conditions: Sequence[NamedCondition],
    device: str = "cpu",
    head: str = "auto",
    progress: Progress | None = None,
) -> list[ViewEntry]:
    """Embed the whole gallery under several conditions in one pass and commit one file each.

    The files join the index when a manifest names them. Memory does not grow with the gallery.

    Raises:
        ResourceError: if the views do not fit on the disk; nothing is written then.
    """
    progress = progress or Silent()
    remark = choose_head(model, device, head, len(store) * len(conditions)).remark
    if conditions and remark:
        progress.say(remark)
    needed = len(conditions) * len(store) * store.dim * 4
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        raise ResourceError(
            f"{len(conditions)} views need {needed / 1e9:.1f} GB in {store.folder} and "
            f"{free / 1e9:.1f} GB are free; ask for fewer with --views types (a condition without "
            "a view is answered all the same)"
        )
    out: list[ViewEntry] = []
    for first in range(0, len(conditions), FILES_A_PASS):
        batch = conditions[first : first + FILES_A_PASS]
        progress.start(f"{len(batch)} views", len(store))
        out += _write_pass(store, model, batch, device, head, progress)
    return out


def _write_pass(
    store: Store,
    model: Embedder,
    conditions: Sequence[NamedCondition],
    device: str,
    head: str,
    progress: Progress,
) -> list[ViewEntry]:
    content = store.manifest.content
    started = time.monotonic()
    with ExitStack() as stack:
        paths = [stack.enter_context(temporary_file(store.folder / "views")) for _ in conditions]
        with ExitStack() as open_files:
            writers = [
                open_files.enter_context(FlatFileWriter(path, len(store), store.dim))
                for path in paths
            ]
            states = [entry.condition for entry in conditions]
            for where, vectors in embed_rows(store, model, states, device=device, head=head):
                for writer, part in zip(writers, vectors, strict=True):
                    writer.append(part)
                store.let_go(where.start, where.stop)
                progress.advance(len(vectors[0]))
        seconds = (time.monotonic() - started) / len(conditions)
        return [
            ViewEntry(
                key=entry.key,
                name=entry.name,
                present=tuple(np.flatnonzero(entry.condition > 0).tolist()),
                absent=tuple(np.flatnonzero(entry.condition < 0).tolist()),
                content=content,
                file=commit_file(path, store.folder, f"views/{entry.key}", ".faiss"),
                seconds=round(seconds, 3),
            )
            for entry, path in zip(conditions, paths, strict=True)
        ]
