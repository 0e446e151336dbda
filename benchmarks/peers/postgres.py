"""Embeddings and tags in PostgreSQL with pgvector: a table, and what asks it.

The vectors have length 1, so `<#>`, the inner product, sorts as `<=>`, the cosine, in less time.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from benchmarks.peers.peer import Peer, Question, Rows, Tags
from benchmarks.private_server import private_server
from training.descriptor import Floats
from training.errors import ResourceError
from training.schema import Schema

Connection = Any
"""Of psycopg, an optional dependency."""

_SCHEMA = "retrieve_bench_peers"
_TABLE = "gallery"
_BUILDING = {"maintenance_work_mem": "2GB", "max_parallel_maintenance_workers": "7"}


@contextmanager
def open_database(dsn: str | None) -> Iterator[str]:
    """The connection string of a database with pgvector and an empty schema for us, which is
    dropped at the end: of the `dsn`, or of a private server that lives as long.

    Raises ResourceError: psycopg, pgvector or the server's programs are missing, or do not work.
    """
    psycopg = _module("psycopg")
    _module("pgvector.psycopg")
    with ExitStack() as stack:
        there = dsn or stack.enter_context(private_server()).dsn
        try:
            with psycopg.connect(there, autocommit=True) as admin:
                admin.execute("CREATE EXTENSION IF NOT EXISTS vector")
                admin.execute(f"CREATE SCHEMA {_SCHEMA}")
        except psycopg.Error as error:
            raise ResourceError(f"PostgreSQL cannot be used: {error}".strip()) from error
        try:
            yield there
        finally:
            with psycopg.connect(there, autocommit=True) as admin:
                admin.execute(f"DROP SCHEMA {_SCHEMA} CASCADE")


def connect(dsn: str, **settings: str) -> Connection:
    """A connection that commits each statement, with vectors as numpy arrays and the settings."""
    psycopg = _module("psycopg")
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(f"SET search_path = {_SCHEMA}, public")
    _module("pgvector.psycopg").register_vector(connection)
    # Compiling pays for no query this short; a plan for all values suits a rare one badly.
    for name, value in {"jit": "off", "plan_cache_mode": "force_custom_plan", **settings}.items():
        connection.execute(f"SET {name} = {value}")
    return connection


def versions(connection: Connection) -> str:
    """Such as `PostgreSQL 15.18, pgvector 0.8.0`."""
    server = connection.execute("SHOW server_version").fetchone()[0].split()[0]
    return f"PostgreSQL {server}, pgvector {_extension(connection)}"


def fill_table(connection: Connection, schema: Schema, embeddings: Floats, tags: Tags) -> float:
    """Make the table anew, of embeddings [N, D] and a column of tags an attribute, with an index
    each; returns the seconds."""
    sql = _module("psycopg.sql")
    columns = [sql.Identifier("_row"), sql.Identifier("_embedding")]
    kinds: list[str] = []
    texts: list[list[Any]] = []
    for number, attribute in enumerate(schema.attributes):
        if attribute.values:
            columns.append(sql.Identifier(attribute.name))
            kinds.append("text[]" if attribute.multi else "text")
            own = tags[:, schema.slice_of(number)]
            names = np.array(attribute.values, dtype=object)
            several = attribute.multi
            texts.append([names[has].tolist() if several else names[has][0] for has in own])
    connection.execute(f"DROP TABLE IF EXISTS {_TABLE}")
    types = ["int4", f"vector({embeddings.shape[1]})", *kinds]
    fields = [sql.SQL("{} {}").format(c, sql.SQL(k)) for c, k in zip(columns, types, strict=True)]
    made = sql.SQL("CREATE TABLE {} ({})").format(sql.SQL(_TABLE), sql.SQL(", ").join(fields))
    connection.execute(made)
    started = time.perf_counter()
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY {_TABLE} FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "vector", *kinds])
            for row, (embedding, *told) in enumerate(zip(embeddings, *texts, strict=True)):
                copy.write_row([row, embedding, *told])
    for name, value in _BUILDING.items():
        connection.execute(f"SET {name} = '{value}'")
    for column, kind in zip(columns[2:], kinds, strict=True):
        method = sql.SQL("gin" if kind == "text[]" else "btree")
        there = sql.SQL("CREATE INDEX ON {} USING {} ({})")
        connection.execute(there.format(sql.SQL(_TABLE), method, column))
    connection.execute(f"VACUUM ANALYZE {_TABLE}")
    return time.perf_counter() - started


def add_hnsw(connection: Connection) -> float:
    """Index the embeddings by a graph, as pgvector does by default; returns the seconds."""
    started = time.perf_counter()
    connection.execute(f"CREATE INDEX ON {_TABLE} USING hnsw (_embedding vector_ip_ops)")
    return time.perf_counter() - started


def table_bytes(connection: Connection) -> int:
    """Of the table and all its indexes."""
    return int(connection.execute(f"SELECT pg_total_relation_size('{_TABLE}')").fetchone()[0])


class PostgresPeer(Peer):
    """The table, asked over a connection of its own: every embedding whose tags fit is compared,
    or with `hnsw` the planner chooses between that and walking the graph."""

    def __init__(self, dsn: str, schema: Schema, hnsw: bool) -> None:
        self.name = f"embedding, tags, pgvector {'HNSW' if hnsw else 'exact'}"
        # Graphs are index scans; tags are looked up by bitmaps where there is no index scan.
        self._connection = connect(dsn, **({} if hnsw else {"enable_indexscan": "off"}))
        version = [int(part) for part in _extension(self._connection).split(".")]
        if hnsw and version >= [0, 8]:  # go on until enough have the tags
            self._connection.execute("SET hnsw.iterative_scan = strict_order")
        self._schema = schema
        self._statement = functools.cache(self._composed)

    def ask(self, question: Question, count: int) -> Rows:
        """See `Peer.ask`."""
        schema = self._schema
        owners = tuple(int(schema.attribute_of[value]) for value in question.values)
        names: list[Any] = []
        for value, owner in zip(question.values, owners, strict=True):
            name = schema.attributes[owner].values[value - schema.offsets[owner]]
            names.append([name] if schema.attributes[owner].multi else name)
        told = [*names, question.embedding, count]
        found = self._connection.execute(self._statement(owners), told).fetchall()
        return np.array([row for (row,) in found], dtype=np.int64)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _composed(self, owners: Sequence[int]) -> Any:
        """The query that filters by a value of each of the attributes, by number."""
        sql = _module("psycopg.sql")
        fits = [
            sql.SQL("{} @> %s" if self._schema.attributes[n].multi else "{} = %s").format(
                sql.Identifier(self._schema.attributes[n].name)
            )
            for n in owners
        ]
        where = sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(fits)) if fits else sql.SQL("")
        text = f"SELECT _row FROM {_TABLE} {{}} ORDER BY _embedding <#> %b LIMIT %s"
        return sql.SQL(text).format(where).as_string(self._connection)


def _extension(connection: Connection) -> str:
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    return str(found.fetchone()[0])


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ResourceError(f"{name} is missing; pip install 'psycopg[binary]' pgvector") from error
