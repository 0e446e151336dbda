"""An index in PostgreSQL with pgvector: `postgresql://user@host/db?table=shop`.

    shop         a row an image: the descriptor's bytes as `halfvec`, which holds them exactly, its
                 cell, labels, and a column of each of the payload's that filters see, each indexed
    shop_facts   one row: what the version says of itself
    shop_files   the model, and the centroids of cells

One statement is one version: each reads the version's name beside what it asks for, so that what
several statements found belongs together, or `Outdated` is raised.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from indexer.hold.database import Counted, Database
from indexer.hold.draft import Facts
from indexer.hold.held import Outdated
from indexer.search.flat import Rows
from indexer.store.gallery import Labels
from training.descriptor import Bytes, Floats
from training.errors import DataError, ResourceError, UsageError

TABLE = "retrieve"
SECONDS = 10
"""To connect in, and until another export ends."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_LARGEST = 1024.0  # of the weights of a query: the smallest that half precision tells is 6e-8
_SETTINGS = ("jit=off", "plan_cache_mode=force_custom_plan")  # no query is long enough for either
_BYTE_OF = np.zeros(1 << 16, np.uint8)  # of half precision's bits, big-endian as they are sent
_BYTE_OF[np.arange(256).astype(">f2").view(">u2")] = np.arange(256)

Rows_ = list[tuple[Any, ...]]


class Place:
    """Where an index is: the server, and the name of the table."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self.table = query.pop("table", TABLE)
        if not _NAME.fullmatch(self.table):
            raise UsageError(
                f"a table of the name {self.table!r}; take lower-case letters, digits and _, 40 at "
                "most"
            )
        self.url = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))
        secret = f":{parts.password}@" if parts.password else "@"
        self.name = url.replace(secret, "@")

    def connect(self) -> Any:
        """A connection that commits each statement; raises ResourceError."""
        psycopg = driver()
        options = " ".join(f"-c {one}" for one in _SETTINGS)
        try:
            return psycopg.connect(
                self.url, autocommit=True, connect_timeout=SECONDS, options=options
            )
        except psycopg.Error as error:
            raise ResourceError(f"{self.name} does not answer: {first_line(error)}") from error


def driver() -> Any:
    """psycopg, an optional dependency; ResourceError if it is missing."""
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ResourceError(
            'psycopg is missing: pip install "m2fashion-retrieval[pgvector]"'
        ) from error


def first_line(error: BaseException) -> str:
    """What a server said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class PostgresIndex(Database):
    """A version of an index in PostgreSQL; a connection a thread that asks at the same time."""

    _equals, _never = "=", "false"

    def __init__(self, url: str) -> None:
        self._place, self._idle = Place(url), list[Any]()
        self._table = self._place.table
        try:
            found = self._run(f"SELECT facts FROM {self._table}_facts")
        except Outdated:
            found = []
        if not found:
            raise DataError(
                f"no index in {self._place.name}: there is no table {self._table}; write one with: "
                f"retrieve export INDEX --to {self._place.name}"
            )
        super().__init__(url, Facts.from_json(found[0][0], self._place.name))

    def _connection(self, fresh: bool) -> Any:
        if fresh:
            while self._idle:
                with suppress(IndexError):
                    self._idle.pop().close()
        try:
            return self._idle.pop()
        except IndexError:
            return self._place.connect()

    def _run(self, statement: str, parameters: Sequence[Any] = ()) -> Rows_:
        """The rows of a statement. Of a server that was restarted old connections are of no use:
        once all are made anew. Raises ResourceError; Outdated: the table is gone."""
        psycopg = driver()
        for fresh in (False, True):
            connection = self._connection(fresh)
            try:
                found: Rows_ = connection.execute(statement, parameters, binary=True).fetchall()
                self._idle.append(connection)
                return found
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                connection.close()
                if fresh:
                    why = f"{self._place.name} does not answer: {first_line(error)}"
                    raise ResourceError(why) from error
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                self._idle.append(connection)
                raise Outdated(f"{self._place.name}: {first_line(error)}; ask again") from error
            except psycopg.Error as error:
                connection.close()
                raise ResourceError(f"{self._place.name}: {first_line(error)}") from error
        raise AssertionError("the second time returns or raises")

    def _ask(self, statement: str, parameters: Sequence[Any] = ()) -> Rows_:
        """The rows of a statement, the first column of which is never null, of this version."""
        found = self._run(
            f"SELECT f.content, q.* FROM {self._table}_facts f LEFT JOIN LATERAL ({statement}) q "
            "ON true",
            parameters,
        )
        if not found or found[0][0] != self.content:
            raise Outdated(f"{self._place.name} holds another version by now; ask again")
        return [row[1:] for row in found if row[1] is not None]

    def look(self) -> object:
        return self._run(f"SELECT content FROM {self._table}_facts")[0][0]

    def _file(self, name: str) -> bytes | None:
        found = self._ask(f"SELECT content FROM {self._table}_files WHERE name = %s", [name])
        return found[0][0] if found else None

    def _count(self, chosen: str) -> Counted:
        found = self._ask(f"SELECT cell, count(*) FROM {self._table} WHERE {chosen} GROUP BY cell")
        useful = np.zeros(len(self._cells.means), dtype=bool)
        useful[[cell for cell, _ in found]] = True
        return sum(count for _, count in found), useful

    def rows(self, chosen: str | None) -> Rows:
        found = self._ask(f"SELECT id FROM {self._table} WHERE {chosen or 'true'} ORDER BY id")
        return np.array([row for (row,) in found], dtype=np.int64)

    def _nearest(self, weights: Floats, count: int, chosen: str | None) -> tuple[Rows, Bytes]:
        scaled = weights * (_LARGEST / max(float(np.abs(weights).max()), 1e-30))
        found = self._ask(
            f"SELECT id, vector FROM {self._table} WHERE {chosen or 'true'} "
            f"ORDER BY vector <#> %s::text::halfvec LIMIT {count}",
            [_vector(scaled)],
        )
        rows = np.array([row for row, _ in found], dtype=np.int64)
        return rows, self._bytes_of([own for _, own in found])

    def _read(self, rows: list[int], names: Sequence[str]) -> Iterable[Sequence[Any]]:
        columns = ", ".join(["id", *names])
        return self._ask(f"SELECT {columns} FROM {self._table} WHERE id = ANY(%s::int8[])", [rows])

    def _bytes_of(self, vectors: Sequence[Any]) -> Bytes:
        # Each comes after its length and an unused number, two bytes each.
        bits = np.frombuffer(b"".join(vectors), ">u2").reshape(len(vectors), 2 + self.layout.width)
        return np.asarray(_BYTE_OF[bits[:, 2:]])

    def _labels_of(self, labels: Sequence[Any]) -> NDArray[np.int8]:
        four = -(-self.layout.values // 4)
        packed = np.frombuffer(b"".join(labels), np.uint8).reshape(len(labels), four)
        return Labels(packed, self.layout.values).of_values(range(len(labels))).T

    def row_of(self, digest: bytes) -> int | None:
        found = self._ask(
            f"SELECT id FROM {self._table} WHERE digest = %s ORDER BY id LIMIT 1", [digest]
        )
        return found[0][0] if found else None

    def _states_of(self, values: Sequence[int], chosen: str | None) -> Iterable[Sequence[int]]:
        states = ", ".join(f"{_code(value)} AS s{place}" for place, value in enumerate(values))
        found = self._ask(f"SELECT DISTINCT {states} FROM {self._table} WHERE {chosen or 'true'}")
        return [[code - 1 for code in row] for row in found]

    def _having(self, values: Sequence[int]) -> str:
        return f"present && ARRAY{list(values)}::int4[]"

    def _state(self, value: int, state: int) -> str:
        return f"{_code(value)} = {state + 1}"

    def _within(self, cells: Rows) -> str:
        return f"cell = ANY('{{{','.join(map(str, cells.tolist()))}}}')"

    def _column(self, number: int) -> str:
        return column_name(number, list(self.columns)[number]).replace("%", "%%")

    def _quoted(self, text: str) -> str:
        return _literal(text).replace("%", "%%")


def _code(value: int) -> str:
    return f"((get_byte(labels, {value // 4}) >> {value % 4 * 2}) & 3)"


def _literal(text: str) -> str:
    """As `standard_conforming_strings` has it, or not: backslashes mean the same to both."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def column_name(number: int, name: str) -> str:
    """A column of the payload: told from ours, and from others that are cut to the same name."""
    plain = re.sub(r"[^\w %.+-]", "_", name.encode("ascii", "replace").decode())
    return f'"c{number}_{plain[:40]}"'


def _vector(numbers: Floats) -> str:
    return "[" + ",".join(f"{number:.6g}" for number in numbers.tolist()) + "]"
