"""The contract of what holds an index: files, PostgreSQL and Milvus pass the same tests.

What is right is read from the files and worked out the slow way.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from holder import Holder
from small_index import Shop, run

from indexer.build.edit import add_images, remove_images
from indexer.hold.held import Held
from indexer.hold.open import open_held
from indexer.store.gallery import parse_number
from indexer.store.store import Store, open_store
from retrieval.engine import Engine
from retrieval.picture import stored_pictures
from retrieval.query_vector import draw_requests
from retrieval.request import Request, resolve_filters
from training.errors import UsageError

FILTERS = [
    {"colour": "red"},
    {"colour": "!=red"},
    {"colour": ["red", "=blue"]},
    {"colour": ["!=red", "!=blue"]},
    {"trim": "red"},
    {"trim": "!=gold"},
    {"trim": ["gold", "!=red"], "colour": "green"},
    {"shape": "disc", "sku": "a-1"},
    {"price": "<30"},
    {"price": [">=30", "<=60.5"]},
    {"price": "=12"},
    {"price": "12.0"},
    {"price": "!=3"},
    {"price": "cheap"},
    {"price": "!=cheap"},
    {"sku": ["a-1", "a-2"]},
    {"sku": "!=a-1"},
    {"sku": ""},
    {"sku": "!="},
    {"sku": 'it\'s \\ "100%" \n'},
    {"colour": "red", "price": ">100000"},
]
REQUESTS = {
    "nothing": {},
    "like": {"like": ["colour"]},
    "one value": {"present": ["disc"]},
    "several": {"present": ["colour:red", "disc", "gold"]},
    "absent": {"present": ["gold"], "absent": ["colour:blue"]},
    "the dial": {"present": ["disc"], "keep": 0.1},
    "filtered": {"present": ["disc"], "where": {"price": "<80", "colour": "!=red"}},
    "filtered away": {"where": {"price": ">100000"}},
    "labels": {"present": ["trim:red", "disc"], "trust_labels": True},
    "labels and a filter": {"present": ["disc"], "trust_labels": True, "where": {"price": "<50"}},
    "exact": {"present": ["disc", "gold"], "exact": True},
    "exact and filtered": {"exact": True, "where": {"sku": "a-1"}},
    "a page": {"offset": 7, "top_k": 5},
    "one an item": {"one_per_item": True},
    "with itself": {"include_query": True},
    "all": {"top_k": 500},
    "good ones": {"present": ["disc"], "min_score": 0.6},
}


def passing(store: Store, filters) -> list[int]:
    """Rows that pass filters, one after another, cell by cell."""
    labels, schema = store.labels(), store.schema

    def passes(row: int, one) -> bool:
        if one.flat is not None:
            own = labels[row, schema.slice_of(int(schema.attribute_of[one.flat]))]
            state = labels[row, one.flat]
            if one.operator == "=":
                return bool(state == 1)
            return bool(state == -1 or (state == 0 and (own == 1).any()))
        cell = store.payload[one.name].text(row)
        numbers = parse_number(cell), parse_number(one.value)
        same = cell == one.value or (None not in numbers and numbers[0] == numbers[1])
        if one.operator in ("=", "!="):
            return same if one.operator == "=" else bool(cell) and not same
        if numbers[0] is None:
            return False
        return bool(eval(f"{numbers[0]!r} {one.operator} {numbers[1]!r}"))

    rows = []
    for row in range(len(store)):
        by_name: dict[str, list[bool]] = {}
        every = True
        for one in filters:
            if one.operator == "=":
                by_name.setdefault(one.name, []).append(passes(row, one))
            else:
                every = every and passes(row, one)
        if every and all(map(any, by_name.values())):
            rows.append(row)
    return rows


@pytest.fixture
def held(holder: Holder, shop: Shop) -> Held:
    return open_held(holder.hold(shop.index))


@pytest.fixture
def store(shop: Shop) -> Store:
    return open_store(shop.index)


def test_everything_is_there(held: Held, store: Store) -> None:
    rows = np.arange(len(store))
    assert len(held) == len(store)
    assert held.rows(None).tolist() == rows.tolist()
    assert (held.schema, held.layout) == (store.schema, store.layout)
    assert held.preprocessing == store.preprocessing
    assert (held.dataset, held.root) == (store.manifest.dataset, store.root)
    assert held.model == store.manifest.identity.model
    assert held.labelled().tolist() == store.labelled().tolist()
    assert held.has_items
    told = {name: (own.numeric, own.told()) for name, own in held.columns.items()}
    assert told == {name: (own.numeric, own.told()) for name, own in store.payload.items()}
    for file in store.manifest.model_files:
        name = file.name.rpartition("/")[2]
        assert held.read_model(name) == store.read_model(name)

    shuffled = np.random.default_rng(0).permutation(rows)
    found = held.records(shuffled)
    assert np.array_equal(found.descriptors, store.descriptors_of(shuffled))
    assert np.array_equal(found.labels, store.labels_of(shuffled))
    assert np.array_equal(found.digests, store.digests_of(shuffled))
    assert np.array_equal(found.items, store.items()[shuffled])
    assert list(found.paths) == [store.paths[row] for row in shuffled]
    assert list(found.payload) == [store.payload_of(row) for row in shuffled]
    assert np.array_equal(held.descriptors_of(shuffled), found.descriptors)
    assert np.array_equal(held.digests_of(shuffled), found.digests)
    assert np.array_equal(held.items_of(shuffled), found.items)
    assert len(held.records(rows[:0]).paths) == 0
    with pytest.raises(IndexError):
        held.records(np.array([len(store)]))


def test_images_are_found_by_their_content(held: Held, store: Store) -> None:
    digests = [bytes(own) for own in store.digests()]
    assert len(set(digests)) < len(digests), "some are copies"
    for digest in digests:
        assert held.row_of(digest) == digests.index(digest)
    assert held.row_of(bytes(32)) is None


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_filters(held: Held, store: Store, where) -> None:
    filters = resolve_filters(store.schema, store.payload, where)
    right, chosen = passing(store, filters), held.passing(filters)
    assert held.rows(chosen).tolist() == right
    assert held.count(chosen) == len(right)


def test_parts_by_labels(held: Held, store: Store) -> None:
    values = [store.schema.value("trim:red"), store.schema.value("disc")]
    filters = resolve_filters(store.schema, store.payload, {"price": ">20"})
    states = store.states(values)
    for chosen, rows in (
        (None, list(range(len(store)))),
        (held.passing(filters), passing(store, filters)),
    ):
        right: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            right.setdefault(tuple(states[row].tolist()), []).append(row)
        found = {}
        for known, part in held.parts(values, chosen):
            key = tuple(0 if v not in known else 1 if known[v] else -1 for v in values)
            found[key] = held.rows(part).tolist()
        assert found == right


def test_search_is_right_where_all_is_read(held: Held, store: Store) -> None:
    layout, codes = store.layout, store.descriptors()
    weights = draw_requests(layout, store.schema, codes[:12], 0)
    filters = resolve_filters(store.schema, store.payload, {"price": "<60"})
    for exact in (False, True):
        for chosen, own in (
            (None, np.arange(len(store))),
            (held.passing(filters), np.array(passing(store, filters))),
        ):
            for k in (1, 9, len(store) + 3):
                rows, scores = held.search(weights, k, chosen, exact)
                for found, told, query in zip(rows, scores, weights, strict=True):
                    right = (codes[own].astype(np.float64) @ query).astype(np.float32)
                    order = np.lexsort((own, -right))[:k]
                    assert found[: len(order)].tolist() == own[order].tolist()
                    np.testing.assert_allclose(told[: len(order)], right[order], rtol=1e-5)
                    assert (found[len(order) :] == -1).all()
                    assert (told[len(order) :] == -np.inf).all()


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_answered_as_by_the_files(holder: Holder, shop: Shop, name: str) -> None:
    engine = Engine.open(holder.hold(shop.index), "cpu")
    right = Engine.open(shop.index, "cpu")
    for picture in ("images/004.png", "images/021.png"):
        request = Request(shop.catalogue / picture, **REQUESTS[name])
        assert engine.query(request).to_json() == right.query(request).to_json()


def test_nearly_all_is_found_where_a_part_is_read(holder: Holder, drawn: Path) -> None:
    held, store = open_held(holder.hold(drawn), "cpu"), open_store(drawn)
    codes, size = store.descriptors().astype(np.float64), len(store)
    pictures = store.descriptors_of(np.random.default_rng(2).permutation(size)[:20])
    weights = draw_requests(store.layout, store.schema, pictures, 2)
    of = lambda **where: resolve_filters(store.schema, store.payload, where)  # noqa: E731
    recalls = []
    for filters in (None, of(colour="!=red"), of(shape="disc"), of(trim="lace", shape="!=disc")):
        own = np.arange(size) if filters is None else np.array(passing(store, filters))
        chosen = None if filters is None else held.passing(filters)
        rows, _ = held.search(weights, 10, chosen)
        right = codes[own] @ weights.astype(np.float64).T
        tenth = np.sort(right, axis=0)[-10]
        assert np.isin(rows, own).all()
        found = np.take_along_axis(codes @ weights.astype(np.float64).T, rows.T, axis=0)
        recalls.append(float((found >= tenth - 1e-9).mean()))
        exact, _ = held.search(weights[:1], 10, chosen, exact=True)
        again = np.take_along_axis(codes @ weights[:1].astype(np.float64).T, exact.T, axis=0)
        assert (again >= tenth[:1] - 1e-9).all()
    assert recalls[0] >= 0.98
    assert min(recalls) >= 0.95


def test_one_hit_an_item_needs_items(holder: Holder, drawn: Path) -> None:
    engine = Engine.open(holder.hold(drawn), "cpu")
    (picture,) = stored_pictures(open_store(drawn), np.array([5]))
    with pytest.raises(UsageError, match="knows no items"):
        engine.query(Request(picture, one_per_item=True))


def test_a_new_version_is_taken_up(holder: Holder, shop: Shop, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(shop.index, index)
    url = holder.url()
    report = holder.export(index, url)
    engine = Engine.open(url or index, "cpu", reload=True)
    request = Request(shop.catalogue / "images/003.png", top_k=100, include_query=True)
    before = engine.query(request)
    content = engine.held.content

    gone = before[1].listed
    remove_images(index, [gone])
    again = holder.export(index, url)
    assert engine.held.content == content, "nobody asked yet"
    after = engine.query(request)
    assert [hit.listed for hit in after] == [h.listed for h in before if h.listed != gone]
    assert engine.held.content != content
    assert not engine.refresh()

    add_images(index, [gone], None)
    holder.export(index, url)
    last = engine.query(request)
    assert sorted(hit.listed for hit in last) == sorted(hit.listed for hit in before)
    assert [hit.score for hit in last] == [hit.score for hit in before]
    if holder.kind == "postgres":
        assert (report.written, report.removed) == (len(before), 0)
        assert (again.written, again.removed) == (0, 1)
    if url:
        assert holder.export(index, url).written == 0


def test_the_command_line(holder: Holder, shop: Shop, capsys) -> None:
    url, index = holder.url(), shop.index
    if url:
        code, out, _ = run(capsys, "export", index, "--to", url)
        assert (code, out.strip()) == (0, "68 images: 68 written, 0 removed")
        assert run(capsys, "export", index, "--to", url)[1].strip() == "68 images: no change"
    words = "query", shop.catalogue / "images/004.png", "--attrs", "disc", "--where", "price<50"
    right = run(capsys, *words, "--index", index, "--json")
    assert run(capsys, *words, "--index", url or index, "--json") == right
    moved = run(capsys, *words, "--index", url or index, "--json", "--root", index)[1]
    assert f"{index}/images" in moved
