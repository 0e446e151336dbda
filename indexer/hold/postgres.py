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
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from indexer.hold.database import Counted, Database, columns_of
from indexer.hold.draft import CELLS, Cells, Draft, Facts, recorded
from indexer.hold.held import Outdated
from indexer.progress import Progress
from indexer.search.choose import Requests
from indexer.search.flat import Rows
from training.descriptor import Bytes, Floats
from training.errors import DataError, LockedError, ResourceError, UsageError

SCHEMES = ("postgresql", "postgres")
TABLE = "retrieve"
MOST_NUMBERS = 16_000
"""Numbers of a `halfvec`."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_SECONDS = 10  # to connect, and until another export ends
_LARGEST = 1024.0  # of the weights of a query: the smallest that half precision tells is 6e-8
_WHOLE = 0.25  # of rows that change, from which all are written anew
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
        psycopg = _psycopg()
        options = " ".join(f"-c {one}" for one in _SETTINGS)
        try:
            return psycopg.connect(
                self.url, autocommit=True, connect_timeout=_SECONDS, options=options
            )
        except psycopg.Error as error:
            raise ResourceError(f"{self.name} does not answer: {_first_line(error)}") from error


def _psycopg() -> Any:
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ResourceError(
            'psycopg is missing: pip install "m2fashion-retrieval[pgvector]"'
        ) from error


def _first_line(error: BaseException) -> str:
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
        psycopg = _psycopg()
        for fresh in (False, True):
            connection = self._connection(fresh)
            try:
                found: Rows_ = connection.execute(statement, parameters, binary=True).fetchall()
                self._idle.append(connection)
                return found
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                connection.close()
                if fresh:
                    why = f"{self._place.name} does not answer: {_first_line(error)}"
                    raise ResourceError(why) from error
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                self._idle.append(connection)
                raise Outdated(f"{self._place.name}: {_first_line(error)}; ask again") from error
            except psycopg.Error as error:
                connection.close()
                raise ResourceError(f"{self._place.name}: {_first_line(error)}") from error
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
        """See `Held`."""
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
        """See `Held`."""
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
        codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
        states = codes.reshape(len(labels), 4 * four)[:, : self.layout.values]
        return states.astype(np.int8) - np.int8(1)

    def row_of(self, digest: bytes) -> int | None:
        """See `Held`."""
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
        return _identifier(number, list(self.columns)[number]).replace("%", "%%")

    def _quoted(self, text: str) -> str:
        return _literal(text).replace("%", "%%")


def _code(value: int) -> str:
    return f"((get_byte(labels, {value // 4}) >> {value % 4 * 2}) & 3)"


def _literal(text: str) -> str:
    """As `standard_conforming_strings` has it, or not: backslashes mean the same to both."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def _identifier(number: int, name: str) -> str:
    """A column of the payload: told from ours, and from others that are cut to the same name."""
    plain = re.sub(r"[^\w %.+-]", "_", name.encode("ascii", "replace").decode())
    return f'"c{number}_{plain[:40]}"'


def _vector(numbers: Floats) -> str:
    return "[" + ",".join(f"{number:.6g}" for number in numbers.tolist()) + "]"


def export_postgres(
    draft: Draft, url: str, requests: Requests, progress: Progress
) -> tuple[int, int]:
    """Make a table hold an index, by one transaction: whoever reads sees the version before, or
    this one. Only what changed is written, unless that is much. Returns the rows that were written
    and those that were removed.

    Raises LockedError: another export goes on; ResourceError: the server does not answer, or lacks
    pgvector.
    """
    place = Place(url)
    if draft.local.layout.width > MOST_NUMBERS:
        raise UsageError(f"descriptors of {draft.local.layout.width} bytes; pgvector holds 16,000")
    psycopg = _psycopg()
    connection = place.connect()
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        with connection.transaction():
            return _Export(draft, connection, place, progress).run(requests)
    except psycopg.errors.LockNotAvailable as error:
        raise LockedError(f"{place.name}: another export goes on; wait for its end") from error
    except psycopg.Error as error:
        raise ResourceError(f"{place.name}: {_first_line(error)}") from error
    finally:
        connection.close()


class _Export:
    """One export, inside of its transaction."""

    def __init__(self, draft: Draft, connection: Any, place: Place, progress: Progress) -> None:
        self._draft, self._connection, self._progress = draft, connection, progress
        self._table, self._name, self._run = place.table, place.name, connection.execute

    def run(self, requests: Requests) -> tuple[int, int]:
        """Write what changed; see `export_postgres`."""
        table, psycopg = self._table, _psycopg()
        with suppress(psycopg.Error), self._connection.transaction():
            # A process that was killed leaves a server that works for nobody.
            self._run("SET LOCAL client_connection_check_interval = '1s'")
        self._run(f"SET LOCAL lock_timeout = '{_SECONDS}s'")
        self._run("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"retrieve {table}"])
        for setting in ("lock_timeout = 0", "maintenance_work_mem = '1GB'"):
            self._run(f"SET LOCAL {setting}")
        old = self._facts()
        if old is not None and old.mark == self._draft.mark:
            return 0, 0
        there: dict[bytes, tuple[int, bytes]] = {}
        cells, lists = None, None
        if old is not None:
            content = self._run(f"SELECT content FROM {table}_files WHERE name = %s", [CELLS])
            cells = Cells.from_bytes(old, content.fetchone()[0])
            if old.shape() == self._draft.facts("", cells).shape():
                found = self._run(f"SELECT key, id, mark FROM {table}")
                there = {key: (row, mark) for key, row, mark in found}
        hashes = self._draft.hashes
        gone = there.keys() - {key for key, _ in hashes}
        changed = [
            row for row, (key, mark) in enumerate(hashes) if there.get(key, (0, b""))[1] != mark
        ]
        whole = not there or len(changed) + len(gone) > _WHOLE * len(there)
        if whole or cells is None:
            cells, lists = self._draft.cells(requests, self._progress)
        facts = self._draft.facts(uuid4().hex, cells)
        if whole:
            assert lists is not None
            self._write_all(facts, lists, cells)
            return len(hashes), 0 if old is None else old.rows
        self._write_some(facts, np.array(changed, dtype=np.int64), there, gone, cells)
        return len(changed), len(gone)

    def _facts(self) -> Facts | None:
        table = f"{self._table}_facts"
        if self._run("SELECT to_regclass(%s)", [table]).fetchone()[0] is None:
            return None
        found = self._run(f"SELECT facts FROM {table}").fetchone()
        try:
            return None if found is None else Facts.from_json(found[0], self._name)
        except DataError:
            return None  # of another version of this program: written anew

    def _write_all(self, facts: Facts, lists: Rows, cells: Cells) -> None:
        """New tables in the place of the old, which readers have until the last moment."""
        table, new = self._table, f"{self._table}_new"
        columns = {
            "id": "int8 PRIMARY KEY",
            "cell": "int4 NOT NULL",
            "vector": f"halfvec({facts.layout.width}) NOT NULL",
            "labels": "bytea NOT NULL",
            "present": "int4[] NOT NULL",
            "item": "int8 NOT NULL",
            "digest": "bytea NOT NULL",
            "record": "json NOT NULL",
            "key": "bytea NOT NULL",
            "mark": "bytea NOT NULL",
        }
        own = {
            _identifier(number, column.name): ("float8", "btree")
            if column.numeric
            else ("text", "hash")
            for number, column in enumerate(facts.columns)
        }
        columns |= {name: kind for name, (kind, _) in own.items()}
        fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self._run(f"DROP TABLE IF EXISTS {new}")
        self._run(f"CREATE TABLE {new} ({fields})")
        self._progress.start("images exported", len(lists))
        order = np.argsort(lists, kind="stable")  # those of a cell lie side by side
        self._copy(new, facts, order, lists[order], order)
        for method, name in (("btree", "cell"), ("gin", "present"), ("hash", "digest")):
            self._run(f"CREATE INDEX ON {new} USING {method} ({name})")
        for name, (_, method) in own.items():
            self._run(f"CREATE INDEX ON {new} USING {method} ({name})")
        self._run(f"ANALYZE {new}")
        for name in (table, f"{table}_facts", f"{table}_files"):
            self._run(f"DROP TABLE IF EXISTS {name}")
        self._run(f"ALTER TABLE {new} RENAME TO {table}")
        self._run(f"CREATE TABLE {table}_facts (content text, facts text)")
        self._run(f"CREATE TABLE {table}_files (name text PRIMARY KEY, content bytea)")
        for name, content in {**self._draft.files, CELLS: cells.to_bytes()}.items():
            self._run(f"INSERT INTO {table}_files VALUES (%s, %s)", [name, content])
        self._run(f"INSERT INTO {table}_facts VALUES (%s, %s)", [facts.content, facts.to_json()])

    def _write_some(
        self,
        facts: Facts,
        changed: Rows,
        there: dict[bytes, tuple[int, bytes]],
        gone: Iterable[bytes],
        cells: Cells,
    ) -> None:
        table, hashes = self._table, self._draft.hashes
        known = [there.get(hashes[row][0], (-1, b""))[0] for row in changed.tolist()]
        rows = [there[key][0] for key in gone] + [row for row in known if row >= 0]
        self._run(f"DELETE FROM {table} WHERE id = ANY(%s)", [rows])
        after = max(row for row, _ in there.values()) + 1
        ids = np.array(known, dtype=np.int64)
        ids[ids < 0] = np.arange(after, after + (ids < 0).sum())
        self._progress.start("images exported", len(changed))
        of_rows = cells.of(self._draft.store.descriptors_of(changed))
        self._copy(table, facts, changed, of_rows, ids)
        self._run(
            f"UPDATE {table}_facts SET content = %s, facts = %s", [facts.content, facts.to_json()]
        )

    def _copy(self, table: str, facts: Facts, rows: Rows, cells: Rows, ids: Rows) -> None:
        """Write rows of the index, in cells [n], under ids [n]."""
        kinds = ["int8", "int4", "text", "bytea", "int4[]", "int8", "bytea", "text"]
        kinds += ["bytea", "bytea"] + ["float8" if own.numeric else "text" for own in facts.columns]
        hashes = self._draft.hashes
        start = 0
        with self._connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for some in self._draft.chunks(rows):
                known = self._draft.local.records(some)
                end = start + len(some)
                of_each = (
                    ids[start:end].tolist(),
                    cells[start:end].tolist(),
                    ["[" + ",".join(map(str, own)) + "]" for own in known.descriptors.tolist()],
                    [own.tobytes() for own in _packed(known.labels)],
                    [np.flatnonzero(own == 1).tolist() for own in known.labels],
                    known.items.tolist(),
                    [own.tobytes() for own in known.digests],
                    recorded(known),
                    *zip(*(hashes[row] for row in some.tolist()), strict=True),
                    *columns_of(facts, known),
                )
                for row in zip(*of_each, strict=True):
                    copy.write_row(row)
                start = end
                self._progress.advance(len(some))


def _packed(labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Label states [n, K] as [n, K / 4 rounded up]: two bits each, the first lowest."""
    codes = np.zeros((len(labels), -(-labels.shape[1] // 4) * 4), np.uint8)
    codes[:, : labels.shape[1]] = labels + 1
    shifts = np.array([0, 2, 4, 6], np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(
        codes.reshape(len(labels), -1, 4) << shifts, axis=2
    )
    return packed
