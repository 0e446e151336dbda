"""Writing an index into PostgreSQL, see `indexer.hold.postgres`: one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np

from indexer.hold.database import columns_of
from indexer.hold.draft import CELLS, Cells, Draft, Facts, recorded
from indexer.hold.postgres import SECONDS, Place, column_name, driver, first_line
from indexer.progress import Progress
from indexer.search.choose import Requests
from indexer.search.flat import Rows
from indexer.store.gallery import Labels
from training.errors import DataError, LockedError, ResourceError, UsageError

MOST_NUMBERS = 16_000
"""Numbers of a `halfvec`."""

_WHOLE = 0.25  # of rows that change, from which all are written anew


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
    psycopg = driver()
    connection = place.connect()
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        with connection.transaction():
            return _Export(draft, connection, place, progress).run(requests)
    except psycopg.errors.LockNotAvailable as error:
        raise LockedError(f"{place.name}: another export goes on; wait for its end") from error
    except psycopg.Error as error:
        raise ResourceError(f"{place.name}: {first_line(error)}") from error
    finally:
        connection.close()


class _Export:
    """One export, inside of its transaction."""

    def __init__(self, draft: Draft, connection: Any, place: Place, progress: Progress) -> None:
        self._draft, self._connection, self._progress = draft, connection, progress
        self._table, self._name, self._run = place.table, place.name, connection.execute

    def run(self, requests: Requests) -> tuple[int, int]:
        """Write what changed; see `export_postgres`."""
        table, psycopg = self._table, driver()
        with suppress(psycopg.Error), self._connection.transaction():
            # A process that was killed leaves a server that works for nobody.
            self._run("SET LOCAL client_connection_check_interval = '1s'")
        self._run(f"SET LOCAL lock_timeout = '{SECONDS}s'")
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
            column_name(number, column.name): ("float8", "btree")
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
                    [own.tobytes() for own in Labels.of(known.labels.T).packed],
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
