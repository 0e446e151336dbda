"""An index in Milvus: `milvus://host:port/shop`, or `milvus:///folder/file.db/shop` by milvus-lite.

    shop         an alias of the collection of the current version
    shop_HASH    a version, an entity an image: the descriptor's bytes as a vector, its cell, labels
                 and a field of each of the payload's columns that filters see
    shop_HASH_files   what the version says of itself, the model, and the centroids of cells

A version is named by its content, filled by one export and never changed; the alias is turned to it
at the end, and the version before is dropped.
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from indexer.hold.database import Counted, Database, columns_of
from indexer.hold.draft import CELLS, Draft, Facts, recorded
from indexer.hold.held import Outdated
from indexer.progress import Progress
from indexer.search.choose import Requests
from indexer.search.flat import Rows
from training.descriptor import Bytes, Floats
from training.errors import DataError, ResourceError, UsageError

NAME = "retrieve"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_FACTS = "facts"
_PART = 48_000  # bytes of a file in one entity: a text of Milvus has at most 65,535
_LONGEST = 65_535
_MOST = 16_384  # entities that one question returns
_BATCH = 1024
_STATES = (-1, 0, 1)


class Place:
    """Where an index is, and under which name."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        before, _, last = parts.path.rpartition("/")
        self.lite = not parts.netloc
        if parts.netloc:
            self.uri = f"{'https' if parts.scheme == 'milvuss' else 'http'}://{parts.hostname}"
            self.uri += f":{parts.port or 19530}"
        elif last.endswith(".db"):
            self.uri, last = parts.path, ""
        else:
            self.uri = before
        self.user, self.password = parts.username or "", parts.password or ""
        self.alias = last or NAME
        self.name = url.replace(f":{self.password}@", "@") if self.password else url
        if not _NAME.fullmatch(self.alias) or not self.uri:
            raise UsageError(
                f"{self.name} names no collection; write milvus://host:port/name, or "
                "milvus:///folder/file.db"
            )

    def connect(self) -> Any:
        """A client; raises ResourceError."""
        try:
            pymilvus = importlib.import_module("pymilvus")
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # errors are told here
        except ImportError as error:
            raise ResourceError(
                'pymilvus is missing: pip install "m2fashion-retrieval[milvus]"'
            ) from error
        return self.told(
            partial(pymilvus.MilvusClient, self.uri, user=self.user, password=self.password)
        )

    def told(self, call: Any) -> Any:
        """What a call returns; its errors as ResourceError."""
        exceptions = importlib.import_module("pymilvus.exceptions")
        try:
            return call()
        except (exceptions.MilvusException, ConnectionError) as error:
            why = str(getattr(error, "message", error)).strip().splitlines()
            raise ResourceError(f"{self.name}: {(why or ['no answer'])[0]}") from error


class MilvusIndex(Database):
    """A version of an index in Milvus."""

    _equals, _never = "==", "id < 0"

    def __init__(self, url: str) -> None:
        self._place = Place(url)
        self._client = self._place.connect()
        current = _current(self._client, self._place)
        if current is None:
            raise DataError(
                f"no index in {self._place.name}; write one with: retrieve export INDEX --to "
                f"{self._place.name}"
            )
        self._collection = current
        facts = self._file(_FACTS)
        assert facts is not None, "it is written before the alias is turned"
        super().__init__(url, Facts.from_json(facts.decode(), self._place.name))

    def _ask(self, method: str, collection: str, **words: Any) -> Any:
        """What a method of the client returns; Outdated if the version is gone."""
        call = getattr(self._client, method)
        try:
            return self._place.told(lambda: call(collection, timeout=60, **words))
        except ResourceError as error:
            if self._place.told(lambda: self._client.has_collection(collection)):
                raise
            raise Outdated(f"{self._place.name} holds another version by now; ask again") from error

    def look(self) -> object:
        current = _current(self._client, self._place)
        return None if current is None else current.rpartition("_")[2]

    def _file(self, name: str) -> bytes | None:
        return _read_file(partial(self._ask, "query"), f"{self._collection}_files", name)

    def _rows_where(self, chosen: str | None, names: list[str]) -> list[Any]:
        """Fields of images."""
        iterator = self._ask(
            "query_iterator",
            self._collection,
            batch_size=_MOST // 4,
            filter=chosen or "",
            output_fields=names,
            limit=-1,
        )
        found: list[Any] = []
        while some := self._place.told(iterator.next):
            found += some
        iterator.close()
        return found

    def _count(self, chosen: str) -> Counted:
        words = {"filter": chosen, "output_fields": ["count(*)"]}
        total = int(self._ask("query", self._collection, **words)[0]["count(*)"])
        useful = np.zeros(len(self._cells.means), dtype=bool)
        if total > len(self) // 4:
            return total, None
        for one in self._rows_where(chosen, ["cell"]):
            useful[one["cell"]] = True
        return total, useful

    def rows(self, chosen: str | None) -> Rows:
        found = self._rows_where(chosen, ["id"])
        return np.array(sorted(one["id"] for one in found), dtype=np.int64)

    def _nearest(self, weights: Floats, count: int, chosen: str | None) -> tuple[Rows, Bytes]:
        if count > _MOST:  # more than it returns
            rows = self.rows(chosen)
            return rows, self.descriptors_of(rows)
        scaled = weights / max(float(np.abs(weights).max()), 1e-30)
        (found,) = self._ask(
            "search",
            self._collection,
            data=[scaled.tolist()],
            filter=chosen or "",
            limit=count,
            output_fields=["vector"],
        )
        rows = np.array([one["id"] for one in found], dtype=np.int64)
        return rows, self._bytes_of([one["entity"]["vector"] for one in found])

    def _read(self, rows: list[int], names: Sequence[str]) -> Iterable[Sequence[Any]]:
        words = {"filter": f"id in {rows}", "output_fields": ["id", *names], "limit": _MOST}
        found = self._ask("query", self._collection, **words)
        return [[one["id"], *(one[name] for name in names)] for one in found]

    def _bytes_of(self, vectors: Sequence[Any]) -> Bytes:
        return np.array(vectors, dtype=np.float32).astype(np.uint8).reshape(-1, self.layout.width)

    def _labels_of(self, labels: Sequence[Any]) -> NDArray[np.int8]:
        return np.array([list(own) for own in labels], np.int8).reshape(-1, self.layout.values)

    def row_of(self, digest: bytes) -> int | None:
        found = self._rows_where(f'digest == "{digest.hex()}"', ["id"])
        return min((int(one["id"]) for one in found), default=None)

    def _states_of(self, values: Sequence[int], chosen: str | None) -> Iterator[Sequence[int]]:
        for states in product(_STATES, repeat=len(values)):
            pairs = zip(values, states, strict=True)
            both = [*(self._state(*pair) for pair in pairs), *([chosen] if chosen else [])]
            if self.count(" and ".join(f"({one})" for one in both)):
                yield states

    def _having(self, values: Sequence[int]) -> str:
        return f"array_contains_any(present, {list(values)})"

    def _state(self, value: int, state: int) -> str:
        return f"labels[{value}] == {state}"

    def _within(self, cells: Rows) -> str:
        return f"cell in {cells.tolist()}"

    def _column(self, number: int) -> str:
        return f"c{number}"

    def _quoted(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)


def _current(client: Any, place: Place) -> str | None:
    """The collection that the alias names."""
    found: str | None = place.told(lambda: _described(client, place.alias))
    return found


def _described(client: Any, alias: str) -> str | None:
    exceptions = importlib.import_module("pymilvus.exceptions")
    try:
        return str(client.describe_alias(alias)["collection_name"])
    except exceptions.MilvusException as error:
        if "not found" in str(error).lower() or "not exist" in str(error).lower():
            return None
        raise


def _read_file(query: Any, collection: str, name: str) -> bytes | None:
    parts: list[str] = []
    while True:
        words = {"filter": f'name == "{name}" and part == {len(parts)}', "output_fields": ["text"]}
        found = query(collection, **words)
        if not found:
            return b"".join(map(base64.b64decode, parts)) if parts else None
        parts.append(found[0]["text"])


def export_milvus(
    draft: Draft, url: str, requests: Requests, progress: Progress
) -> tuple[int, int]:
    """Make a name of Milvus hold an index: a new collection, to which the name is turned when it is
    filled. Returns the entities that were written, none where nothing changed, and of the version
    before. Raises ResourceError: the server does not answer."""
    place = Place(url)
    client = place.connect()
    try:
        done: tuple[int, int] = place.told(
            lambda: _export(draft, client, place, requests, progress)
        )
        return done
    finally:
        client.close()


def _export(
    draft: Draft, client: Any, place: Place, requests: Requests, progress: Progress
) -> tuple[int, int]:
    content = draft.mark[:16]
    name, current = f"{place.alias}_{content}", _described(client, place.alias)
    _sweep(client, place.alias, current)  # of killed exports
    if current == name:
        return 0, 0
    cells, lists = draft.cells(requests, progress)
    facts = draft.facts(content, cells)
    files = {**draft.files, CELLS: cells.to_bytes(), _FACTS: facts.to_json().encode()}
    _make_files(client, f"{name}_files", files)
    _make_images(client, name, facts, place.lite)
    progress.start("images exported", len(draft))
    for rows in draft.chunks(np.arange(len(draft))):
        entities = _entities(draft, facts, rows, lists)
        for start in range(0, len(entities), _BATCH):
            client.insert(name, entities[start : start + _BATCH])
        progress.advance(len(rows))
    client.flush(name)
    turn = client.create_alias if current is None else client.alter_alias
    turn(name, place.alias)
    before = 0 if current is None else client.get_collection_stats(current)["row_count"]
    _sweep(client, place.alias, name)
    return len(draft), int(before)


def _sweep(client: Any, alias: str, kept: str | None) -> None:
    """Drop all versions but one."""
    ours = re.compile(rf"{re.escape(alias)}_[0-9a-f]{{16}}(_files)?")
    for name in client.list_collections():
        if ours.fullmatch(name) and name not in (kept, f"{kept}_files"):
            client.drop_collection(name)


def _entities(draft: Draft, facts: Facts, rows: Rows, lists: Rows) -> list[dict[str, Any]]:
    known = draft.local.records(rows)
    fields: Mapping[str, Sequence[Any]] = {
        "id": rows.tolist(),
        "cell": lists[rows].tolist(),
        "vector": known.descriptors.astype(np.float32).tolist(),
        "labels": known.labels.tolist(),
        "present": [np.flatnonzero(own == 1).tolist() for own in known.labels],
        "item": known.items.tolist(),
        "digest": [own.tobytes().hex() for own in known.digests],
        "record": recorded(known),
    }
    columns = {f"c{n}": own for n, own in enumerate(columns_of(facts, known))}
    whole = {**fields, **columns}
    return [dict(zip(whole, own, strict=True)) for own in zip(*whole.values(), strict=True)]


def _make_images(client: Any, name: str, facts: Facts, lite: bool) -> None:
    kinds = importlib.import_module("pymilvus").DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    values = max(facts.layout.values, 1)
    schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("cell", kinds.INT32)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=facts.layout.width)
    schema.add_field("labels", kinds.ARRAY, element_type=kinds.INT8, max_capacity=values)
    schema.add_field("present", kinds.ARRAY, element_type=kinds.INT32, max_capacity=values)
    schema.add_field("item", kinds.INT64)
    schema.add_field("digest", kinds.VARCHAR, max_length=64)
    schema.add_field("record", kinds.VARCHAR, max_length=_LONGEST)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    for field in ("cell", "digest") if lite else ("cell", "digest", "present"):
        indexes.add_index(field, index_type="INVERTED")
    for number, column in enumerate(facts.columns):
        if column.numeric:
            schema.add_field(f"c{number}", kinds.DOUBLE, nullable=True)
        else:
            schema.add_field(f"c{number}", kinds.VARCHAR, max_length=_LONGEST, nullable=True)
        indexes.add_index(f"c{number}", index_type="INVERTED")
    _make(client, name, schema, indexes)


def _make_files(client: Any, name: str, files: Mapping[str, bytes]) -> None:
    kinds = importlib.import_module("pymilvus").DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("name", kinds.VARCHAR, max_length=200)
    schema.add_field("part", kinds.INT64)
    schema.add_field("text", kinds.VARCHAR, max_length=_LONGEST)
    schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)  # each collection has to have one
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    _make(client, name, schema, indexes)
    number = 0
    for file, content in files.items():
        for part, start in enumerate(range(0, len(content), _PART)):
            text = base64.b64encode(content[start : start + _PART]).decode()
            entity = {"id": number, "name": file, "part": part, "text": text, "vector": [0.0, 0.0]}
            client.insert(name, [entity])
            number += 1
    client.flush(name)


def _make(client: Any, name: str, schema: Any, indexes: Any) -> None:
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")
    client.load_collection(name)
