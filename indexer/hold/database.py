"""What databases share: conditions for filters, cells that are read for a query, and its scores.

A condition is a text in the database's own language. The database names the images whose
descriptors have the highest inner product with a query vector; their scores are computed again
here, from the bytes.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.hold.draft import CELLS, Cells, Facts
from indexer.hold.held import Filter, Held, Records, remembered
from indexer.search.flat import Rows
from indexer.search.index import GATHER, exact_scores
from indexer.store.gallery import parse_number
from training.descriptor import Bytes, Floats
from training.errors import CorruptStoreError
from training.images.preprocessing import Preprocessing
from training.schema import Schema

_BEYOND = 16  # candidates more than are wanted, for ties and roundings
_WIDER = 4  # times as many cells, where those that were read hold too few
_CHUNK = 1 << 14  # rows that are read at a time
_LONGEST = 1000  # characters of a cell that filters see
_KEPT = 1024  # conditions of which is remembered what they leave

Counted = tuple[int, NDArray[np.bool_] | None]
"""How many images a condition leaves, and which cells hold some [C]; None: as good as all."""


class Database(Held[str]):
    """An index in a database, images chosen by a condition."""

    def __init__(self, name: str, facts: Facts) -> None:
        self.name, self.facts, self.seen = name, facts, facts.content
        self.schema = Schema.from_json(facts.schema)
        self.layout, self.dataset, self.content = facts.layout, facts.dataset, facts.content
        self.preprocessing = Preprocessing.from_json(facts.preprocessing)
        self.model, self.precision = facts.model, facts.precision
        self.root, self.has_items = Path(facts.root), facts.has_items
        self.columns = {column.name: column for column in facts.columns}
        self._counted = remembered(self._count, _KEPT)

    @cached_property
    def _cells(self) -> Cells:
        return Cells.from_bytes(self.facts, self.read_model(CELLS))

    # What each database does in its own way.

    @abstractmethod
    def _count(self, chosen: str) -> Counted: ...

    @abstractmethod
    def _nearest(self, weights: Floats, count: int, chosen: str | None) -> tuple[Rows, Bytes]:
        """Rows and descriptors of the best images by weights [width], about, in any order."""

    @abstractmethod
    def _read(self, rows: list[int], names: Sequence[str]) -> Iterable[Sequence[Any]]:
        """Row and columns of images, in any order; those that are not there are left out."""

    @abstractmethod
    def _bytes_of(self, vectors: Sequence[Any]) -> Bytes:
        """Descriptors [n, width] of the column `vector`."""

    @abstractmethod
    def _states_of(self, values: Sequence[int], chosen: str | None) -> Iterable[Sequence[int]]:
        """The different label states of values [n] that images have."""

    @abstractmethod
    def _file(self, name: str) -> bytes | None: ...

    @abstractmethod
    def _having(self, values: Sequence[int]) -> str:
        """Any of the values is known to be present."""

    @abstractmethod
    def _state(self, value: int, state: int) -> str: ...

    @abstractmethod
    def _within(self, cells: Rows) -> str: ...

    @abstractmethod
    def _column(self, number: int) -> str: ...

    @abstractmethod
    def _quoted(self, text: str) -> str: ...

    _equals: str
    _never: str

    def __len__(self) -> int:
        return self.facts.rows

    def outdated(self) -> bool:
        return self.look() != self.content

    def ready(self) -> None:
        _ = self._cells

    def read_model(self, name: str) -> bytes:
        found = self._file(name)
        if found is None:
            raise CorruptStoreError(f"{self.name} has no {name}; export the index again")
        return found

    def passing(self, filters: tuple[Filter, ...]) -> str:
        either: dict[str, list[str]] = {}
        every = []
        for one in filters:
            text = self._labelled(one) if one.flat is not None else self._in_column(one)
            if one.operator == "=":
                either.setdefault(one.name, []).append(f"({text})")
            else:
                every.append(text)
        return _all(*every, *(" or ".join(own) for own in either.values()))

    def _labelled(self, one: Filter) -> str:
        flat = one.flat
        assert flat is not None
        if one.operator == "=":
            return self._having([flat])
        own = self.schema.slice_of(int(self.schema.attribute_of[flat]))
        others = [value for value in range(own.start, own.stop) if value != flat]
        stated = [self._state(flat, -1), *([self._having(others)] if others else [])]
        return f"not {self._having([flat])} and ({' or '.join(stated)})"

    def _in_column(self, one: Filter) -> str:
        number, numeric = list(self.columns).index(one.name), self.columns[one.name].numeric
        name, value = self._column(number), parse_number(one.value)
        if one.operator not in ("=", "!="):
            return f"{name} {one.operator} {value!r}"
        if not one.value:
            return f"{name} is null" if one.operator == "=" else f"{name} is not null"
        same = f"{name} {self._equals} {value!r}"
        if not numeric:
            same = f"{name} {self._equals} {self._quoted(shown(one.value))}"
        elif value is None:
            same = self._never
        return same if one.operator == "=" else f"{name} is not null and not ({same})"

    def parts(
        self, values: Sequence[int], chosen: str | None
    ) -> Iterator[tuple[dict[int, bool], str]]:
        for states in self._states_of(values, chosen):
            pairs = list(zip(values, states, strict=True))
            own = _all(*(self._state(*pair) for pair in pairs), *([chosen] if chosen else []))
            yield {value: state > 0 for value, state in pairs if state}, own

    def count(self, chosen: str) -> int:
        return self._counted(chosen)[0]

    def search(
        self, weights: Floats, k: int, chosen: str | None = None, exact: bool = False
    ) -> tuple[Rows, Floats]:
        rows = np.full((len(weights), k), -1, dtype=np.int64)
        scores = np.full((len(weights), k), -np.inf, dtype=np.float32)
        for query, own in enumerate(np.asarray(weights, dtype=np.float32)):
            if exact:
                found, about = self._best_of_all(own, k, chosen)
            else:
                found, codes = self._candidates(own, k, chosen)
                about = exact_scores(codes, own)
            order = np.lexsort((found, -about))[:k]
            rows[query, : len(order)], scores[query, : len(order)] = found[order], about[order]
        return rows, scores

    def candidates(self, weights: Floats, count: int, chosen: str | None = None) -> list[Rows]:
        return [self._candidates(own, count, chosen)[0] for own in weights]

    def _candidates(self, weights: Floats, k: int, chosen: str | None) -> tuple[Rows, Bytes]:
        total, useful = (len(self), None) if chosen is None else self._counted(chosen)
        wanted = min(k + _BEYOND, total)
        if not wanted:
            return np.zeros(0, np.int64), np.zeros((0, self.layout.width), np.uint8)
        order = self._cells.order(weights)
        if useful is not None:
            order = order[useful[order]]
        probes = self.facts.probes if chosen is None else self.facts.filtered_probes
        while total > GATHER and probes < len(order):
            cells = self._within(order[:probes])
            found = self._nearest(weights, wanted, cells if chosen is None else _all(cells, chosen))
            if len(found[0]) == wanted:
                return found
            probes *= _WIDER
        return self._nearest(weights, wanted, chosen)

    def _best_of_all(self, weights: Floats, k: int, chosen: str | None) -> tuple[Rows, Floats]:
        """The best of all images, every descriptor read."""
        best, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        every = self.rows(chosen)
        for start in range(0, len(every), _CHUNK):
            some = every[start : start + _CHUNK]
            rows = np.concatenate([best, some])
            own = np.concatenate([scores, exact_scores(self.descriptors_of(some), weights)])
            order = np.lexsort((rows, -own))[:k]
            best, scores = rows[order], own[order]
        return best, scores

    def _of(self, rows: Rows, *names: str) -> list[list[Any]]:
        """Columns of images, each [n]."""
        found: dict[int, Sequence[Any]] = {}
        asked = rows.tolist()
        for start in range(0, len(asked), _CHUNK):
            some = asked[start : start + _CHUNK]
            found |= {row: own for row, *own in self._read(some, names)}
        try:
            return [[found[row][place] for row in asked] for place in range(len(names))]
        except KeyError as error:
            raise IndexError(f"there is no row {error}") from error

    def descriptors_of(self, rows: Rows) -> Bytes:
        return self._bytes_of(self._of(rows, "vector")[0])

    def digests_of(self, rows: Rows) -> NDArray[np.uint8]:
        return _digests(self._of(rows, "digest")[0])

    def items_of(self, rows: Rows) -> Rows:
        return np.array(self._of(rows, "item")[0], dtype=np.int64)

    def records(self, rows: Rows) -> Records:
        names = "vector", "labels", "digest", "item", "record"
        vectors, labels, digests, items, records = self._of(rows, *names)
        told: list[Mapping[str, Any]] = [
            own if isinstance(own, dict) else json.loads(own) for own in records
        ]
        return Records(
            self._bytes_of(vectors),
            self._labels_of(labels),
            _digests(digests),
            np.array(items, dtype=np.int64),
            [own["path"] for own in told],
            [own["payload"] for own in told],
        )

    @abstractmethod
    def _labels_of(self, labels: Sequence[Any]) -> NDArray[np.int8]:
        """Label states [n, K] of the column `labels`."""

    def labelled(self) -> NDArray[np.int64]:
        return np.array(self.facts.labelled, dtype=np.int64)


def shown(text: str) -> str:
    """A cell as filters see it: a text that any database can hold, cut if it is very long."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")[:_LONGEST]


def columns_of(facts: Facts, known: Records) -> list[list[Any]]:
    """What filters see of the payload of images, a list a column; None: empty."""
    out = []
    for column in facts.columns:
        cells = [own.get(column.name) for own in known.payload]
        make = float if column.numeric else shown
        out.append([None if cell is None else make(cell) for cell in cells])
    return out


def _all(*conditions: str) -> str:
    return " and ".join(f"({one})" for one in conditions)


def _digests(texts: Sequence[Any]) -> NDArray[np.uint8]:
    hashes = b"".join(bytes.fromhex(own) if isinstance(own, str) else own for own in texts)
    return np.frombuffer(hashes, np.uint8).reshape(len(texts), 32)
