"""An index as it is exported: its rows, what a version says of itself, and the cells of its rows.

Cells are inverted lists, see `indexer.search.lists`: a number a row, by which a database reads the
part of its rows that a query is likely to like. Of 100,000 rows a query that compares by a single
attribute finds half of its true first ten in a graph (HNSW) over descriptors, since near in all is
not near in one; in cells, which are made by what queries weigh, all but a few.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from indexer.hold.held import Records
from indexer.hold.local import LocalIndex
from indexer.progress import Progress
from indexer.search.choose import (
    HITS,
    QUERIES,
    Requests,
    draw_filters,
    drawn_weights,
    sorted_into,
)
from indexer.search.flat import Allowed, Rows
from indexer.search.index import GATHER
from indexer.search.lists import nearest_centre, open_lists
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.errors import DataError

FORMAT = 1
CELLS = "cells"
"""Name of the file of centroids among those of the model."""

_RECALL, _WORST_RECALL = 0.995, 0.98  # by which probes are chosen, with other requests than to come
_ROWS_A_CELL, _MOST_CELLS = 16, 4096
_CHUNK = 4096  # rows that are read at a time


@dataclass(frozen=True)
class Told:
    """A column of the payload: its name and what `Column.told` says of it."""

    name: str
    what: dict[str, Any]

    @property
    def numeric(self) -> bool:
        """Whether all its cells are numbers, but for empty ones."""
        return bool(self.what["numeric"])

    def told(self) -> dict[str, Any]:
        """What it holds."""
        return self.what


@dataclass(frozen=True)
class Facts:
    """What a version in a database says of itself; `mark` is a hash of all that is in it, `probes`
    and `filtered_probes` are cells that a query reads, as of `InvertedLists`."""

    format: int
    content: str
    mark: str
    rows: int
    dataset: str
    root: str
    model: str
    precision: str
    layout: DescriptorLayout
    schema: dict[str, Any]
    preprocessing: dict[str, Any]
    columns: tuple[Told, ...]
    has_items: bool
    labelled: tuple[int, ...]
    probes: int
    filtered_probes: int

    def to_json(self) -> str:
        """ASCII: names that are not UTF-8 keep their bytes as surrogates, which JSON escapes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, name: str) -> Facts:
        """Raises DataError, which calls the database by its name."""
        data = json.loads(text)
        if data.get("format") != FORMAT:
            raise DataError(
                f"{name} was exported by another version of this program: export the index again"
            )
        return msgspec.convert(data, cls)

    def shape(self) -> tuple[object, ...]:
        """What tables depend on: where it is another one, all rows are written anew."""
        columns = [(column.name, column.numeric) for column in self.columns]
        return self.model, self.precision, self.layout, self.schema, self.preprocessing, columns


@dataclass(frozen=True)
class Cells:
    """Mean and deviation of the descriptors of each cell, [C, width] float32 each, and how many
    cells a query reads, without and with a filter."""

    means: Floats
    deviations: Floats
    probes: int = 1
    filtered_probes: int = 1

    @classmethod
    def over(cls, blocks: Iterable[Bytes], lists: Rows, count: int) -> Cells:
        """Of descriptors [n, width] of consecutive rows, each in one of `count` cells [M]."""
        sums = squares = np.zeros(0)
        start = 0
        for block in blocks:
            for first in range(0, len(block), _CHUNK):
                part = block[first : first + _CHUNK].astype(np.float64)
                if not start:
                    sums, squares = np.zeros((2, count, part.shape[1]))
                order = np.argsort(own := lists[start : start + len(part)], kind="stable")
                held, places = np.unique(own[order], return_index=True)
                sums[held] += np.add.reduceat(part[order], places)
                squares[held] += np.add.reduceat(part[order] ** 2, places)
                start += len(part)
        sizes = np.maximum(np.bincount(lists, minlength=count), 1)[:, None]
        means = sums / sizes
        deviations = np.sqrt(np.maximum(squares / sizes - means**2, 0))
        return cls(means.astype(np.float32), deviations.astype(np.float32))

    def order(self, weights: Floats) -> Rows:
        """Cells by how high the scores of what they hold may be for a query's weights [width]."""
        # Comparing by few attributes, those with the best are often not those that are best on
        # average: with a deviation added, 128 of 4,096 cells hold 0.99 instead of 0.98 of the best.
        likely = self.means @ weights + np.sqrt(self.deviations**2 @ weights**2)
        return np.argsort(-likely, kind="stable")

    def to_bytes(self) -> bytes:
        """As a file of numpy."""
        out = io.BytesIO()
        np.save(out, np.stack([self.means, self.deviations]).astype(np.float16))
        return out.getvalue()

    @classmethod
    def from_bytes(cls, facts: Facts, content: bytes) -> Cells:
        """Of such a file, and what is said of it."""
        both = np.load(io.BytesIO(content)).astype(np.float32)
        return cls(both[0], both[1], facts.probes, facts.filtered_probes)

    def of(self, descriptors: Bytes) -> Rows:
        """The cell of each of some descriptors [n, width], [n]."""
        return nearest_centre([descriptors], self.means)


class Draft:
    """All that an index holds, ready to be written elsewhere."""

    def __init__(self, local: LocalIndex) -> None:
        self.local, self.store = local, local.store

    def __len__(self) -> int:
        return len(self.store)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The model's files by name."""
        names = [entry.name.rpartition("/")[2] for entry in self.store.manifest.model_files]
        return {name: self.store.read_model(name) for name in names}

    @cached_property
    def hashes(self) -> list[tuple[bytes, bytes]]:
        """Of every row which image it is, by path and content, and all that is known of it."""
        again: Counter[bytes] = Counter()  # a path may be listed twice
        out: list[tuple[bytes, bytes]] = []
        for rows in self.chunks(np.arange(len(self))):
            known = self.local.records(rows)
            payload = map(json.dumps, known.payload)
            of_each = known.paths, known.digests, known.descriptors, known.labels, known.items
            for path, digest, code, states, item, cells in zip(*of_each, payload, strict=True):
                key = _hash(path.encode("utf-8", "surrogateescape"), digest.tobytes())
                again[key] += 1
                key = _hash(key, str(again[key]).encode())
                rest = code.tobytes(), states.tobytes(), str(item).encode(), cells.encode()
                out.append((key, _hash(key, *rest)))
        return out

    def facts(self, content: str, cells: Cells) -> Facts:
        """What the version will say of itself."""
        local, manifest = self.local, self.store.manifest
        facts = Facts(
            format=FORMAT,
            content=content,
            mark=self.mark,
            rows=len(self),
            dataset=local.dataset,
            root=str(local.root),
            model=local.model,
            precision=local.precision,
            layout=local.layout,
            schema=manifest.schema,
            preprocessing=manifest.preprocessing,
            columns=tuple(Told(name, own.told()) for name, own in local.columns.items()),
            has_items=local.has_items,
            labelled=tuple(local.labelled().tolist()),
            probes=cells.probes,
            filtered_probes=cells.filtered_probes,
        )
        return facts

    @cached_property
    def mark(self) -> str:
        """A hash of rows, model and what else is exported."""
        manifest = self.store.manifest
        about = str((manifest.identity, manifest.dataset, manifest.root, list(self.local.columns)))
        digest = hashlib.sha256(about.encode("utf-8", "surrogateescape"))
        for _, mark in self.hashes:
            digest.update(mark)
        return digest.hexdigest()

    def cells(self, requests: Requests, progress: Progress) -> tuple[Cells, Rows]:
        """Cells, and that of each row [M]: those of the index, if it has some. `requests` makes
        queries like those to come."""
        store, rows, width = self.store, len(self), self.store.layout.width
        if rows <= GATHER:  # all are read
            return Cells(*np.zeros((2, 1, width), np.float32)), np.zeros(rows, np.int64)
        weights = drawn_weights(store, requests)
        if store.lists is not None:
            found = open_lists(store.folder, store.manifest.search, store.lists, verify=False)
            count, lists = found.lists, found.list_of_rows()
        else:
            count = min(_MOST_CELLS, 1 << (rows // _ROWS_A_CELL).bit_length() - 1)
            progress.say(f"sorting {rows:,} descriptors into {count:,} cells")
            lists = sorted_into(store, count, weights)
        return self._measured(Cells.over(store.blocks(), lists, count), lists, weights), lists

    def _measured(self, cells: Cells, lists: Rows, weights: Floats) -> Cells:
        """Cells with as many read as hold the true first hits of most queries, [any, width]."""
        some = weights[:QUERIES]
        order = np.stack([cells.order(own) for own in some])

        def probes(allowed: Allowed | None, recall: float) -> int:
            useful = np.ones(len(cells.means), dtype=bool)
            if allowed is not None:
                useful[:] = np.bincount(lists[allowed], minlength=len(useful)) > 0
            best, _ = self.local.index.search(some, HITS, allowed, exact=True)
            places = np.empty_like(order)  # of every cell, among those that are useful
            np.put_along_axis(places, order, np.cumsum(useful[order], axis=1), axis=1)
            needed = np.take_along_axis(places, lists[best], axis=1)
            return int(np.quantile(needed, recall, method="higher"))

        filtered = [probes(own, _WORST_RECALL) for own in draw_filters(self.store)]
        own = probes(None, _RECALL)
        return replace(cells, probes=own, filtered_probes=max([own, *filtered]))

    def chunks(self, rows: Rows) -> Iterator[Rows]:
        """Rows, a few thousand at a time."""
        return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def recorded(known: Records) -> list[str]:
    """Path and payload of each image, as ASCII."""
    pairs = zip(known.paths, known.payload, strict=True)
    return [json.dumps({"path": path, "payload": dict(payload)}) for path, payload in pairs]


def _hash(*parts: bytes) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(4, "little"))
        whole.update(part)
    return whole.digest()
