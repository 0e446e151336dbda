"""Hits against a ranking computed the slow and obvious way from all stored descriptors."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_index import Shop

from indexer.build.edit import remove_images
from retrieval import picture as picture_module
from retrieval.engine import Engine
from retrieval.hits import QueryResult
from retrieval.query_vector import (
    ALONE,
    COMPARED,
    GARMENT_SHARE,
    KEEP,
    NAMED_ROOTS,
    NUANCE,
    PART,
    ROOTS,
    SHOWN,
    Asked,
    formula_of,
)
from retrieval.request import Request
from retrieval.sheet import explain
from training.checkpoint import load_checkpoint
from training.descriptor import GARMENT
from training.errors import CorruptStoreError, DataError, UsageError
from training.images.tensors import normalise

IMAGES = 68  # of 70 listed, two cannot be read

QUERIES = {
    "none": {},
    "one type": {"like": ["colour"]},
    "two types": {"like": ["colour", "trim"]},
    "value": {"present": ["disc"]},
    "combination": {"present": ["colour:red", "square", "gold"]},
    "several of a multi-valued": {"present": ["trim:red", "gold"]},
    "every attribute": {"present": ["disc", "gold", "round"], "absent": ["colour:red"]},
    "absent only": {"absent": ["blue"]},
    "present and absent": {"present": ["gold"], "absent": ["colour:blue", "disc"]},
    "type and value": {"like": ["shape"], "present": ["green"]},
    "type without a value": {"like": ["colour"], "absent": ["green"]},
    "keep little": {"present": ["disc", "gold"], "keep": 0.1},
    "keep all": {"present": ["disc"], "keep": 1},
    "keep nothing": {"absent": ["blue"], "keep": 0},
}


@pytest.fixture(scope="module")
def engine(shop: Shop) -> Engine:
    return Engine.open(str(shop.index), device="cpu")


def slow_scores(
    engine: Engine, image: Path, trust_labels: bool = False, keep: float | None = None, **names
) -> np.ndarray:
    """Score of every gallery image, [M] float64, from the bytes of its descriptor."""
    schema, store, layout = engine.schema, engine.store, engine.store.layout
    wanted = [schema.value(n) for n in names.get("present", ())]
    unwanted = [schema.value(n) for n in names.get("absent", ())]
    like = [schema.attribute(n) for n in names.get("like", ())]
    named = {int(schema.attribute_of[v]) for v in wanted + unwanted}
    kept = like or [n for n in range(len(schema.attributes)) if n not in named]
    keep = KEEP if keep is None else keep
    pixels = torch.from_numpy(store.preprocessing.open(image))[None]
    with torch.inference_mode():
        model = load_checkpoint(store.model_folder).model
        trunk = model.trunk(normalise(pixels, store.preprocessing))
        chances, nuance = (part[0].double().numpy() for part in model.describe(trunk))
    starts = np.cumsum([0] + [size for _, size in layout.groups])
    scores = []
    for row, own in enumerate(store.descriptors()):
        root, plain = own[: schema.size] / 255, own[schema.size : 2 * schema.size] / 255
        other = (own[2 * schema.size :][: layout.nuance] / 127.5 - 1) * layout.spans
        each = []
        for value in wanted + unwanted:
            chance = NAMED_ROOTS * root[value] + (1 - NAMED_ROOTS) * plain[value]
            if trust_labels and store.labels()[row, value]:
                chance = float(store.labels()[row, value] > 0)
            each.append(chance if value in wanted else 1 - chance)
        by_chance = []
        for number in kept:
            where = schema.slice_of(number)
            share = chances[where] / chances[where].sum()
            roots = 0 if like else ROOTS
            by_chance.append((share * (roots * root[where] + (1 - roots) * plain[where])).sum())
        cosines = {
            owner: (1 + (nuance[start : start + size] * other[start : start + size]).sum()) / 2
            for start, (owner, size) in zip(starts, layout.groups, strict=False)
            if owner in kept or (owner == GARMENT and not like)
        }
        in_nuance = cosines.pop(GARMENT, 0.0)
        if like:
            in_nuance = np.mean(list(cosines.values()))
        elif cosines:
            own_types = np.mean(list(cosines.values()))
            in_nuance = (1 - GARMENT_SHARE) * own_types + GARMENT_SHARE * in_nuance
        told = COMPARED if like else NUANCE if named else ALONE
        alike = (1 - told) * np.mean(by_chance) + told * in_nuance if kept else in_nuance
        shown = np.prod([*chances[wanted], *(1 - chances[unwanted])])
        there = (1 - PART) * np.prod(each) + PART * np.mean(each) if each else 0.0
        change = (1 - keep) * (1 + SHOWN * shown) if named else 0.0
        scores.append((change * there + keep * alike) / (change + keep))
    return np.array(scores)


def assert_ranked(result: QueryResult, scores: np.ndarray, rows: np.ndarray, k: int) -> None:
    """The hits are the `k` best of `rows`, best first, up to the rounding of float32."""
    found = np.array([hit.row for hit in result], dtype=int)
    assert [hit.rank for hit in result] == list(range(1, len(found) + 1))
    assert len(found) == len(set(found.tolist())) == min(k, len(rows))
    assert set(found.tolist()) <= set(rows.tolist())
    np.testing.assert_allclose([hit.score for hit in result], scores[found], atol=2e-6)
    assert (np.diff(scores[found]) < 2e-6).all()
    others = np.setdiff1d(rows, found)
    if len(others) and len(found):
        assert scores[others].max() <= scores[found].min() + 2e-6


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.parametrize("trust", [False, True])
def test_hits_are_those_of_a_slow_ranking(engine: Engine, shop: Shop, names, trust: bool) -> None:
    image = shop.catalogue / "images/004.png"
    scores = slow_scores(engine, image, trust, **names)
    assert (scores > -1e-6).all()
    assert (scores < 1 + 1e-6).all()
    result = engine.query(Request(image, **names, trust_labels=trust, include_query=True))
    assert_ranked(result, scores, np.arange(IMAGES), 10)
    assert (result.gallery, result.searched, result.left_out) == (IMAGES, IMAGES, 0)


def passes(cells: dict[str, str], name: str, condition: str) -> bool:
    """Whether a row of labels.csv passes a condition such as `red`, `!=red` or `<5`."""
    cell = cells[name.lower()]
    if condition[0] in "<>":
        bound = float(condition.lstrip("<>="))
        compare = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}
        return bool(cell) and compare[condition.removesuffix(condition.lstrip("<>="))](
            float(cell), bound
        )
    values = cell.lower().split("|")
    if condition.startswith("!="):
        return bool(cell) and condition[2:].lower() not in values
    return condition.lower() in values


@pytest.mark.parametrize(
    "where",
    [
        {"colour": "red"},
        {"Colour": "RED", "shape": "square"},
        {"trim": "gold"},
        {"trim": ["gold", "Red"]},
        {"colour": ["red", "blue"], "shape": "disc"},
        {"colour": "!=red"},
        {"colour": ["!=red", "!=blue"]},
        {"trim": "!=red"},
        {"trim": ["gold", "!=red"]},
        {"category": "round", "price": "<30"},
        {"price": [">=10", "<50.5"]},
        {"price": [">40", "<=90"], "colour": "!=green"},
        {"price": "3"},
        {"sku": ["a-1", "a-2"]},
        {"SKU": "!=a-1"},
    ],
)
@pytest.mark.parametrize("names", [{}, {"like": ["colour"]}, {"present": ["disc"]}])
def test_a_filter_keeps_what_labels_csv_says(engine: Engine, shop: Shop, where, names) -> None:
    kept = []
    for row, cells in enumerate(shop.rows()[:IMAGES]):
        given = {n: [v] if isinstance(v, str) else v for n, v in where.items()}
        plain = {n: [v for v in own if v[0] not in "!<>"] for n, own in given.items()}
        if all(
            (not plain[n] or any(passes(cells, n, v) for v in plain[n]))
            and all(passes(cells, n, v) for v in own if v not in plain[n])
            for n, own in given.items()
        ):
            kept.append(row)
    assert 0 < len(kept) < IMAGES
    image = shop.catalogue / "images/001.png"
    asked = {**names, "where": where, "include_query": True}
    result = engine.query(Request(image, **asked, top_k=IMAGES))
    assert result.searched == len(kept)
    assert_ranked(result, slow_scores(engine, image, **names), np.array(kept), IMAGES)
    cut = engine.query(Request(image, **asked, top_k=3))
    assert [hit.row for hit in cut] == [hit.row for hit in result][:3]


def test_fault_30_a_filter_that_nothing_fits_gives_no_hits(engine: Engine, shop: Shop) -> None:
    for names in ({}, {"present": ["disc"]}, {"like": ["colour"]}):
        for trust in (False, True):
            where = {"colour": "red", "category": "round", "shape": "square"}
            image = shop.catalogue / "images/000.png"
            result = engine.query(Request(image, **names, where=where, trust_labels=trust))
            assert (len(result), result.searched, list(result)) == (0, 0, [])


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.parametrize("top_k", [1, IMAGES - 1, IMAGES, IMAGES + 1, 10**30])
def test_fault_30_top_k_beyond_the_gallery_gives_the_gallery(
    engine, shop: Shop, names, top_k
) -> None:
    image = shop.catalogue / "images/003.png"
    result = engine.query(Request(image, **names, top_k=top_k, include_query=True))
    assert len({hit.row for hit in result}) == len(result) == min(top_k, IMAGES)
    assert all(hit.row >= 0 for hit in result)


@pytest.mark.parametrize("names", [{"like": ["colour"]}, {"like": ["trim"]}, {"present": ["disc"]}])
@pytest.mark.parametrize("image", ["images/000.png", "images/004.png"])
@pytest.mark.parametrize("trust", [False, True])
def test_pages_are_cut_from_one_ranking(engine, shop: Shop, names, image: str, trust) -> None:
    # Both pictures are in the gallery three times: many a cut goes through a tie.
    asked = {**names, "trust_labels": trust, "include_query": True}
    every = [h.row for h in engine.query(Request(shop.catalogue / image, **asked, top_k=IMAGES))]
    for start, k in ((0, 1), (0, 7), (1, 1), (3, 5), (30, 30), (60, 30), (IMAGES, 3)):
        hits = engine.query(Request(shop.catalogue / image, **asked, top_k=k, offset=start))
        assert [hit.row for hit in hits] == every[start : start + k]
        assert [hit.rank for hit in hits] == list(range(start + 1, start + 1 + len(hits)))


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
def test_fault_24_copies_of_an_image_tie_by_row(engine: Engine, shop: Shop, names) -> None:
    paths = list(engine.store.paths)
    copies = sorted(paths.index(p) for p in ("images/000.png", "copy-a.png", "copy-b.png"))
    for image in ("images/000.png", "images/030.png"):
        result = engine.query(
            Request(shop.catalogue / image, **names, top_k=IMAGES, include_query=True)
        )
        places = [(hit.row, hit.score) for hit in result if hit.row in copies]
        assert [row for row, _ in places] == copies
        assert len({score for _, score in places}) == 1
        order = [(-hit.score, hit.row) for hit in result]
        assert order == sorted(order)


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.parametrize("top_k", [2, 10, IMAGES])
def test_the_picture_and_its_copies_are_left_out(
    engine: Engine, shop: Shop, tmp_path: Path, names, top_k: int
) -> None:
    paths = list(engine.store.paths)
    copies = {paths.index(p) for p in ("images/000.png", "copy-a.png", "copy-b.png")}
    elsewhere = tmp_path / "mine.png"  # the bytes count, not the name
    shutil.copy(shop.catalogue / "images/000.png", elsewhere)
    every = engine.query(Request(elsewhere, **names, top_k=IMAGES, include_query=True))
    found = engine.query(Request(elsewhere, **names, top_k=top_k))
    others = [hit for hit in every if hit.row not in copies]
    assert [hit.row for hit in found] == [hit.row for hit in others][:top_k]
    last = found[-1].score if top_k < IMAGES else 0
    assert found.left_out == sum(h.row in copies for h in every if h.score >= last)
    with Image.open(elsewhere) as picture:  # of pixels alone nobody knows the file
        assert engine.query(Request(picture, **names, top_k=top_k)).left_out == found.left_out
        assert engine.query(Request(picture.copy(), **names, top_k=top_k)).left_out == 0


def test_one_hit_an_item_is_its_best(engine: Engine, shop: Shop) -> None:
    rows = shop.rows()
    for names in QUERIES.values():
        image = shop.catalogue / "images/002.png"
        every = engine.query(Request(image, **names, top_k=IMAGES))
        best, seen = [], set()
        for hit in every:
            item = rows[hit.row]["item"]
            if not item or item not in seen:
                best.append(hit.row)
            seen.add(item)
        assert len(best) < len(every)
        for k in (3, 20, IMAGES):
            hits = engine.query(Request(image, **names, top_k=k, one_per_item=True))
            assert [hit.row for hit in hits] == best[:k]
    numbers = {rows[hit.row]["item"]: hit.item for hit in every if rows[hit.row]["item"]}
    assert len(set(numbers.values())) == len(numbers) > 10
    for hit in every:
        item = rows[hit.row]["item"]
        assert numbers[item] == hit.item if item else hit.item not in numbers.values()


def test_hits_below_a_score_are_left_out(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/002.png"
    every = engine.query(Request(image, ["disc"], top_k=IMAGES))
    for place in (0, 9, 40):
        hits = engine.query(Request(image, ["disc"], top_k=IMAGES, min_score=every[place].score))
        assert [hit.row for hit in hits] == [hit.row for hit in every[: place + 1]]
    assert len(engine.query(Request(image, ["disc"], min_score=1))) == 0


def test_repeated_queries_give_identical_results(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/009.png"
    first = [engine.query(Request(image, **names)).to_json() for names in QUERIES.values()]
    assert [engine.query(Request(image, **names)).to_json() for names in QUERIES.values()] == first


def test_a_picture_in_memory_or_encoded_before_is_the_file(engine: Engine, shop: Shop) -> None:
    path = shop.catalogue / "images/009.png"
    asked = {"present": ["disc"], "include_query": True}
    expected = engine.query(Request(str(path), **asked)).to_json() | {"image": ""}
    with Image.open(path) as picture:
        assert engine.query(Request(picture, **asked)).to_json() | {"image": ""} == expected
    assert engine.query(Request(engine.encode(path), **asked)).to_json() | {"image": ""} == expected


def test_a_picture_is_encoded_once(shop: Shop, tmp_path: Path, monkeypatch) -> None:
    engine = Engine.open(shop.index, device="cpu")
    seen = []
    real = picture_module.encode
    monkeypatch.setattr(
        picture_module, "encode", lambda model, x: seen.append(len(x)) or real(model, x)
    )
    shutil.copy(shop.catalogue / "images/009.png", tmp_path / "other name.png")
    for path in (shop.catalogue / "images/009.png", tmp_path / "other name.png"):
        for names in QUERIES.values():
            engine.query(Request(path, **names))
    assert seen == [1]
    Image.new("RGB", (40, 40), "red").save(tmp_path / "other name.png")
    engine.query(Request(tmp_path / "other name.png"))  # another picture now
    assert seen == [1, 1]


def test_several_values_are_scored_among_the_best_by_vector_and_by_likeness(
    engine: Engine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.engine.CANDIDATES", 9)
    picture = engine.encode(shop.catalogue / "images/004.png")
    names = ["colour:red", "gold"]
    schema, store = engine.schema, engine.store
    formula = formula_of(
        store.layout,
        schema,
        picture.chances,
        picture.nuance,
        Asked([schema.value(n) for n in names]),
    )
    descriptors, few = store.descriptors(), set()
    for vector in (formula.vector, formula.alike):
        few |= set(np.argsort(-vector.scores(descriptors), kind="stable")[:9].tolist())
    assert 9 < len(few) <= 18
    scores = formula.scores(descriptors)
    expected = sorted(few, key=lambda row: (-scores[row], row))[:5]
    found = engine.query(Request(picture, names, top_k=5, include_query=True))
    assert [hit.row for hit in found] == expected
    everyone = engine.query(Request(picture, names, top_k=5, include_query=True, exact=True))
    assert [hit.row for hit in everyone] == np.argsort(-scores, kind="stable")[:5].tolist()


def test_known_labels_are_believed_when_asked(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/001.png"  # a green disc
    labels = engine.store.labels()[:, engine.schema.value("colour:red")]
    result = engine.query(Request(image, ["colour:red"], trust_labels=True, top_k=IMAGES, keep=0))
    found = labels[[hit.row for hit in result]]
    assert (found[: (labels == 1).sum()] == 1).all()
    for hit in result:
        if labels[hit.row]:  # known, so that what the model thinks does not count
            assert hit.score == pytest.approx(float(labels[hit.row] == 1), abs=1e-6)
    assert {hit.requested[0].verdict for hit in result if labels[hit.row] == 1} == {"present"}


def test_hits_tell_what_is_known_and_what_is_predicted(engine: Engine, shop: Shop) -> None:
    result = engine.query(
        Request(shop.catalogue / "images/000.png", ["gold"], ["disc"], top_k=IMAGES)
    )
    rows, schema = shop.rows(), engine.schema
    pictures = torch.from_numpy(
        np.stack([engine.store.preprocessing.open(hit.path) for hit in result])
    )
    with torch.inference_mode():
        model = load_checkpoint(engine.store.model_folder).model
        trunk = model.trunk(normalise(pictures, engine.store.preprocessing))
        all_chances = model.describe(trunk).chances.double().numpy()
    for hit, chances in zip(result, all_chances, strict=True):
        cells = rows[hit.row]
        known = {
            a: sorted(cells[a].split("|"))
            for a in ("colour", "shape", "category", "trim")
            if cells[a]
        }
        assert {a: sorted(v) for a, v in hit.known.items()} == known
        assert hit.payload == {name: cells[name] for name in ("price", "sku") if cells[name]}
        for attribute, (value, probability) in hit.predicted.items():
            own = chances[schema.slice_of(schema.attribute(attribute))]
            step = 0.5 / 255 + 1e-5  # half a byte
            assert probability == pytest.approx(own.max(), abs=step)
            assert chances[schema.value(f"{attribute}:{value}")] >= own.max() - 2 * step
        gold, disc = hit.requested
        assert (gold.name, gold.wanted, disc.name, disc.wanted) == ("gold", True, "disc", False)
        assert gold.probability == pytest.approx(chances[schema.value("gold")], abs=0.02)
        for value, attribute in ((gold, "trim"), (disc, "shape")):
            if cells[attribute]:
                there = value.name in cells[attribute].split("|")
                assert value.verdict == ("present" if there else "absent")
            else:
                likely = value.probability >= 0.5
                assert value.verdict == ("predicted" if likely else "predicted-absent")
    # Of the query image nothing is known, not even if it is in the gallery.
    assert all(v.verdict.startswith("predicted") for v in result.requested)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"present": ["rde"]}, "unknown value 'rde'; nearest: "),
        ({"present": ["red"]}, "say which: colour:red, trim:red"),
        ({"present": ["colour"]}, "--like colour"),
        ({"present": ["disc", "disc"]}, "'disc' is named twice"),
        ({"present": ["disc", "shape:DISC"]}, "'shape:DISC' is named twice (also as 'disc')"),
        ({"present": ["disc", " - "]}, "' - ' is empty"),
        ({"like": ["colour", "Colour"]}, "'Colour' is named twice"),
        ({"like": ["disc"]}, "unknown attribute 'disc'"),
        ({"present": ["disc"], "absent": ["disc"]}, "contradictory"),
        ({"present": ["disc", "square"]}, "only one value of 'shape'"),
        ({"where": {"colour": "gold"}}, "unknown value of 'colour' 'gold'"),
        ({"where": {"color": "red"}}, "unknown attribute or column 'color'; nearest: colour"),
        ({"present": ["colour=red"]}, "write colour:red, or red alone"),
        ({"present": "disc"}, "['disc']"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_k": -3}, "not -3"),
        ({"offset": -1}, "offset must be at least 0, not -1"),
        ({"keep": 1.5}, "keep must be 0..1, not 1.5"),
        ({"keep": float("nan")}, "keep must be 0..1, not nan"),
        ({"min_score": -0.1}, "min_score must be 0..1, not -0.1"),
    ],
)
def test_fault_28_wrong_names_are_refused(engine: Engine, shop: Shop, names, words: str) -> None:
    with pytest.raises(UsageError) as error:
        engine.query(Request(shop.catalogue / "images/000.png", **names))
    assert words in str(error.value)


def test_one_hit_an_item_needs_items(shop: Shop, monkeypatch) -> None:
    engine = Engine.open(shop.index, device="cpu")
    monkeypatch.setattr(engine.store, "gallery", replace(engine.store.gallery, items=None))
    monkeypatch.setattr(engine.held, "has_items", False)
    with pytest.raises(UsageError, match="knows no items"):
        engine.query(Request(shop.catalogue / "images/000.png", one_per_item=True))
    assert engine.query(Request(shop.catalogue / "images/000.png"))[0].item is None


def test_an_image_that_cannot_be_read(engine: Engine, shop: Shop) -> None:
    for name in ("broken.jpg", "images/gone.png", "images", "a\0b"):
        with pytest.raises(DataError):
            engine.query(Request(shop.catalogue / name))


def test_fault_07_damaged_descriptors_are_found_before_use(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(shop.index, folder)
    shard = sorted((folder / "shards").iterdir())[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=shard.name):
        Engine.open(folder, device="cpu").query(Request(shop.catalogue / "images/000.png"))


def test_many_requests_are_answered_as_one_by_one(engine: Engine, shop: Shop) -> None:
    images = [shop.catalogue / f"images/{n:03d}.png" for n in (0, 4, 9, 17)]
    requests = [
        Request(image, **names, top_k=3 + number, trust_labels=trust)
        for number, image in enumerate(images)
        for names in QUERIES.values()
        for trust in (False, True)
    ]
    requests += [Request(image, where={"colour": "red"}, like=["shape"]) for image in images]
    requests += [Request(engine.encode(images[1]), one_per_item=True)]
    found = engine.query_many(requests)
    for request, result in zip(requests, found, strict=True):
        alone = engine.query_many([request])[0]
        assert alone.to_json() == result.to_json()
    with pytest.raises(UsageError, match="unknown value"):
        engine.query_many([requests[0], Request(images[0], present=["rde"])])
    assert engine.query_many([]) == []


def test_an_engine_opened_by_a_relative_path_survives_another_working_folder(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.root)
    engine = Engine.open("indexes/shop", device="cpu")
    monkeypatch.chdir(tmp_path)
    request = Request(shop.catalogue / "images/003.png", ["disc"])
    result = engine.query(request)
    assert len(explain(engine, request, result).seen) == 1 + len(result)
    assert not engine.refresh()
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_that_moved_is_told_of_and_found_again(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.catalogue, tmp_path / "shop")
    shutil.copytree(shop.index, tmp_path / "index")
    engine = Engine.open(tmp_path / "index", device="cpu", root=tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'} is not there; --root" in "".join(engine.held.remarks)
    engine = Engine.open(tmp_path / "index", device="cpu", root=tmp_path / "shop")
    assert engine.held.remarks == ()
    hit = engine.query(Request(tmp_path / "shop/images/003.png", top_k=1))[0]
    assert hit.path == tmp_path / "shop" / hit.listed
    assert hit.listed in engine.store.paths


@pytest.mark.parametrize("reload", [False, True])
def test_an_open_engine_sees_a_new_version(shop: Shop, tmp_path: Path, reload: bool) -> None:
    shutil.copytree(shop.index, tmp_path / "index")
    engine = Engine.open(tmp_path / "index", device="cpu", reload=reload)
    request = Request(shop.catalogue / "images/003.png", top_k=IMAGES, include_query=True)
    before = engine.query(request)
    gone = before[1]
    remove_images(tmp_path / "index", [gone.listed])
    after = engine.query(request)
    assert (gone.listed in [hit.listed for hit in after]) != reload
    assert engine.refresh() != reload
    after = engine.query(request)
    assert [hit.listed for hit in after] == [h.listed for h in before if h.listed != gone.listed]
    assert not engine.refresh()


def test_queries_end_with_the_version_that_they_began_with(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shop.index, tmp_path / "index")
    engine = Engine.open(tmp_path / "index", device="cpu")
    request = Request(shop.catalogue / "images/003.png", top_k=IMAGES, include_query=True)
    right = engine.query(request).to_json()
    real = engine.index.search

    def meanwhile(*asked):
        remove_images(tmp_path / "index", [engine.store.paths[0]])
        assert engine.refresh()
        return real(*asked)

    monkeypatch.setattr(engine.index, "search", meanwhile)
    assert engine.query(request).to_json() == right
    assert len(engine.store) == right["gallery"] - 1


def test_an_engine_that_nobody_holds_is_gone_at_once(shop: Shop) -> None:
    opened = Engine.open(shop.index, "cpu")
    attribute = opened.schema.attributes[0]
    opened.query(
        Request(shop.catalogue / "images/001.png", where={attribute.name: attribute.values[0]})
    )
    held = weakref.ref(opened.held)
    gc.disable()  # a service that is busy cannot wait for it
    try:
        del opened
        assert held() is None
    finally:
        gc.enable()
