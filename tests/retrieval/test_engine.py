"""Hits against a ranking computed the slow and obvious way from the stored maps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_index import Shop

from indexer.manifest import read_manifest, write_manifest
from indexer.views import condition_key
from retrieval.engine import Engine
from retrieval.hits import QueryResult
from retrieval.ranking import PRESENCE_WEIGHT, SETTLED_WEIGHT
from retrieval.request import Request, resolve
from retrieval.view_pool import BUILD_AFTER
from training.errors import CorruptStoreError, DataError, UsageError

IMAGES = 68  # of 70 listed, two cannot be read

QUERIES = {
    "none": {},
    "type with a view": {"like": ["colour"]},
    "two types": {"like": ["colour", "trim"]},
    "value": {"present": ["disc"]},
    "combination": {"present": ["colour:red", "square", "gold"]},
    "several of a multi-valued": {"present": ["trim:red", "gold"]},
    "absent only": {"absent": ["blue"]},
    "present and absent": {"present": ["gold"], "absent": ["colour:blue", "disc"]},
    "type and value": {"like": ["shape"], "present": ["green"]},
    "type without a value": {"like": ["colour"], "absent": ["green"]},
}


@pytest.fixture(scope="module")
def engine(shop: Shop) -> Engine:
    return Engine.open(str(shop.index), device="cpu")


@pytest.fixture(scope="module")
def without_views(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("bare") / "index"
    shutil.copytree(shop.index, folder)
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert len(manifest.views) == 4
    write_manifest(folder / "manifest.json", replace(manifest, views=()))
    shutil.rmtree(folder / "views")
    return Engine.open(folder, device="cpu")


def slow_scores(engine: Engine, image: Path, trust_labels: bool = False, **names) -> np.ndarray:
    """Score of every gallery image, [N] float64, one by one."""
    schema, model, store = engine.schema, engine.model, engine.store
    wanted = [schema.value(n) for n in names.get("present", ())]
    unwanted = [schema.value(n) for n in names.get("absent", ())]
    condition = np.zeros(schema.size, dtype=np.float32)
    for name in names.get("like", ()):
        condition[schema.slice_of(schema.attribute(name))] = 1
    condition[wanted] = 1
    condition[unwanted] = -1
    states = torch.from_numpy(condition)[None]
    named = {int(schema.attribute_of[v]) for v in wanted + unwanted}
    kept = [schema.attribute(name) for name in names.get("like", ())]
    kept = kept or [n for n in range(len(schema.attributes)) if n not in named]
    pixels = torch.from_numpy(store.preprocessing.open(image))[None]
    scores = []
    types = [torch.from_numpy(schema.type_condition(n)).float()[None] for n in kept]
    with torch.inference_mode():
        features = model.features(store.preprocessing.normalise(pixels))
        query = model.attend(features, states)[0].double()
        by_type = [model.attend(features, t)[0].double() for t in types]
        own = model.predict(features)[0].double()
        has = float(np.prod([own[v] for v in wanted] + [1 - own[v] for v in unwanted]))
        for row in range(len(store)):
            maps, keys = store.maps(np.array([row]))
            score = float(query @ model.attend(maps, states, keys)[0].double())
            if wanted or unwanted:
                if types:
                    alike = [
                        float(q @ model.attend(maps, t, keys)[0].double())
                        for q, t in zip(by_type, types, strict=True)
                    ]
                    score = (has * score + sum(alike) / len(alike)) / (has + 1)
                present = 1.0
                for value in wanted + unwanted:
                    chance = float(store.predicted()[row, value])
                    label = int(store.labels()[row, value])
                    if trust_labels and label:
                        chance = float(label > 0)
                    present *= chance if value in wanted else 1 - chance
                weight = SETTLED_WEIGHT if trust_labels else PRESENCE_WEIGHT
                score += (weight + 2 * has * weight) * present  # thrice for what the query shows
            scores.append(score)
    return np.array(scores)


def assert_ranked(result: QueryResult, scores: np.ndarray, rows: np.ndarray, k: int) -> None:
    """The hits are the `k` best of `rows`, best first, up to the rounding of float32."""
    found = np.array([hit.row for hit in result])
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
    result = engine.query(image, **names, top_k=10, trust_labels=trust)
    assert_ranked(result, scores, np.arange(IMAGES), 10)
    assert (result.gallery, result.searched) == (IMAGES, IMAGES)


def test_what_has_a_view_and_what_has_none(engine: Engine) -> None:
    schema, store = engine.schema, engine.store
    assert store.view(condition_key(schema.condition(types=["colour"]))) is not None
    assert store.view(condition_key(schema.condition())) is None
    assert store.view(condition_key(schema.condition(["disc"]))) is None


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
def test_the_same_hits_without_any_view(engine, without_views, shop: Shop, names) -> None:
    image = shop.catalogue / "images/017.png"
    one, two = (e.query(image, **names, top_k=10) for e in (engine, without_views))
    assert [h.row for h in one] == [h.row for h in two]
    np.testing.assert_allclose([h.score for h in one], [h.score for h in two], atol=1e-5)
    assert one.condition == two.condition


@pytest.mark.parametrize(
    "where",
    [
        {"colour": "red"},
        {"Colour": "RED", "shape": "square"},
        {"trim": "gold"},
        {"trim": "red", "colour": "red"},
        {"trim": ["gold", "Red"]},
        {"category": "round"},
    ],
)
@pytest.mark.parametrize("names", [{}, {"like": ["colour"]}, {"present": ["disc"]}])
def test_a_filter_keeps_what_labels_csv_says(engine: Engine, shop: Shop, where, names) -> None:
    kept = [
        row
        for row, cells in enumerate(shop.rows()[:IMAGES])
        if all(
            v.lower() in cells[a.lower()].split("|")
            for a, given in where.items()
            for v in ([given] if isinstance(given, str) else given)
        )
    ]
    assert 0 < len(kept) < IMAGES
    image = shop.catalogue / "images/001.png"
    result = engine.query(image, **names, where=where, top_k=IMAGES)
    assert result.searched == len(kept)
    assert_ranked(result, slow_scores(engine, image, **names), np.array(kept), IMAGES)
    cut = engine.query(image, **names, where=where, top_k=3)
    assert [hit.row for hit in cut] == [hit.row for hit in result][:3]


def test_fault_30_a_filter_that_nothing_fits_gives_no_hits(engine: Engine, shop: Shop) -> None:
    for names in ({}, {"present": ["disc"]}, {"like": ["colour"]}):
        where = {"colour": "red", "category": "round", "shape": "square"}
        result = engine.query(shop.catalogue / "images/000.png", **names, where=where)
        assert (len(result), result.searched, list(result)) == (0, 0, [])


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
@pytest.mark.parametrize("top_k", [1, IMAGES - 1, IMAGES, IMAGES + 1, 10**30])
def test_fault_30_top_k_beyond_the_gallery_gives_the_gallery(
    engine, shop: Shop, names, top_k
) -> None:
    result = engine.query(shop.catalogue / "images/003.png", **names, top_k=top_k)
    assert len({hit.row for hit in result}) == len(result) == min(top_k, IMAGES)
    assert all(hit.row >= 0 for hit in result)


@pytest.mark.parametrize("names", [{"like": ["colour"]}, {"like": ["trim"]}, {"present": ["disc"]}])
@pytest.mark.parametrize("image", ["images/000.png", "images/004.png"])
def test_fewer_hits_are_the_first_of_more(engine, shop: Shop, names, image: str) -> None:
    # Both pictures are in the gallery three times: many a cut goes through a tie.
    every = [h.row for h in engine.query(shop.catalogue / image, **names, top_k=IMAGES)]
    for k in range(1, IMAGES):
        hits = engine.query(shop.catalogue / image, **names, top_k=k)
        assert [hit.row for hit in hits] == every[:k]


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
def test_fault_24_copies_of_an_image_tie_by_row(engine: Engine, shop: Shop, names) -> None:
    paths = list(engine.store.paths)
    copies = sorted(paths.index(p) for p in ("images/000.png", "copy-a.png", "copy-b.png"))
    for image in ("images/000.png", "images/030.png"):
        result = engine.query(shop.catalogue / image, **names, top_k=IMAGES)
        places = [(hit.rank, hit.row, hit.score) for hit in result if hit.row in copies]
        assert [row for _, row, _ in places] == copies
        assert max(s for _, _, s in places) - min(s for _, _, s in places) < 2e-6
        first = places[0][0]
        assert [rank for rank, _, _ in places] == [first, first + 1, first + 2]


@pytest.mark.parametrize("names", QUERIES.values(), ids=QUERIES.keys())
def test_a_picture_of_the_gallery_is_like_itself(engine: Engine, shop: Shop, names) -> None:
    for row in (5, 23, 41):
        image = shop.catalogue / engine.store.paths[row]
        result = engine.query(image, **names, top_k=IMAGES)
        own = next(hit for hit in result if hit.row == row)
        assert own.path == image
        assert own.likeness == pytest.approx(1, abs=1e-3)
        assert own.likeness == pytest.approx(max(hit.likeness for hit in result), abs=1e-3)


def test_repeated_queries_give_identical_results(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/009.png"
    # More conditions without a view than are kept, so that some are computed twice.
    first = [engine.query(image, **names).to_json() for names in QUERIES.values()]
    assert [engine.query(image, **names).to_json() for names in QUERIES.values()] == first


def test_a_picture_in_memory_is_the_file(engine: Engine, shop: Shop) -> None:
    path = shop.catalogue / "images/009.png"
    with Image.open(path) as picture:
        one = engine.query(picture, present=["disc"]).to_json() | {"image": ""}
    assert one == engine.query(str(path), present=["disc"]).to_json() | {"image": ""}


def test_known_labels_are_believed_when_asked(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/001.png"  # a green disc
    labels = engine.store.labels()[:, engine.schema.value("colour:red")]
    result = engine.query(image, present=["colour:red"], trust_labels=True, top_k=IMAGES)
    found = labels[[hit.row for hit in result]]
    assert (
        found[: (labels == 1).sum()] == 1
    ).all()  # likeness spans 2 at most, presence adds as much
    weight = SETTLED_WEIGHT * (1 + 2 * result.requested[0].probability)
    for hit in result:
        if labels[hit.row]:  # known, so that what the model thinks does not count
            presence = float(labels[hit.row] == 1)
            assert hit.score == pytest.approx(hit.likeness + weight * presence, abs=1e-5)
    assert {hit.requested[0].verdict for hit in result if labels[hit.row] == 1} == {"present"}


def test_hits_tell_what_is_known_and_what_is_predicted(engine: Engine, shop: Shop) -> None:
    result = engine.query(shop.catalogue / "images/000.png", ["gold"], ["disc"], top_k=IMAGES)
    rows, schema = shop.rows(), engine.schema
    for hit in result:
        cells = rows[hit.row]
        known = {
            a: sorted(cells[a].split("|"))
            for a in ("colour", "shape", "category", "trim")
            if cells[a]
        }
        assert {a: sorted(v) for a, v in hit.known.items()} == known
        chances = engine.store.predicted()[hit.row].astype(float)
        for attribute, (value, probability) in hit.predicted.items():
            own = chances[schema.slice_of(schema.attribute(attribute))]
            assert probability == pytest.approx(own.max())
            assert chances[schema.value(f"{attribute}:{value}")] == own.max()
        gold, disc = hit.requested
        assert (gold.name, gold.wanted, disc.name, disc.wanted) == ("gold", True, "disc", False)
        for value, attribute in ((gold, "trim"), (disc, "shape")):
            if cells[attribute]:
                there = value.name in cells[attribute].split("|")
                assert value.verdict == ("present" if there else "absent")
            else:
                likely = value.probability >= 0.5
                assert value.verdict == ("predicted" if likely else "predicted-absent")
    # Of the query image nothing is known, not even if it is in the gallery.
    assert all(v.verdict.startswith("predicted") for v in result.requested)


def test_stored_predictions_are_the_models(engine: Engine) -> None:
    with torch.inference_mode():
        direct = engine.model.predict(*engine.store.maps(slice(None))).numpy()
    np.testing.assert_allclose(engine.store.predicted(), direct, atol=0.01)


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
        ({"where": {"colour": ["red", "blue"]}}, "an image has one value of 'colour'"),
        ({"where": {"color": "red"}}, "unknown attribute 'color'; nearest: colour"),
        ({"present": ["colour=red"]}, "write colour:red, or red alone"),
        ({"present": "disc"}, "['disc']"),
        ({"where": ["colour=red"]}, "where takes attribute -> value"),
        ({"search": "fast"}, "unknown search 'fast'"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"top_k": -3}, "not -3"),
    ],
)
def test_fault_28_wrong_names_are_refused(engine: Engine, shop: Shop, names, words: str) -> None:
    with pytest.raises(UsageError) as error:
        engine.query(shop.catalogue / "images/000.png", **names)
    assert words in str(error.value)


def test_an_image_that_cannot_be_read(engine: Engine, shop: Shop) -> None:
    for name in ("broken.jpg", "images/gone.png", "images", "a\0b"):
        with pytest.raises(DataError):
            engine.query(shop.catalogue / name)


def test_fault_07_a_damaged_view_is_found_before_use(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(shop.index, folder)
    view = next(iter(sorted((folder / "views").iterdir())))
    content = bytearray(view.read_bytes())
    content[len(content) // 2] ^= 1
    view.write_bytes(content)
    damaged = Engine.open(folder, device="cpu")
    image = shop.catalogue / "images/000.png"
    for number, attribute in enumerate(damaged.schema.attributes):
        key = condition_key(damaged.schema.type_condition(number))
        if key in view.name:
            with pytest.raises(CorruptStoreError, match=view.name):
                damaged.query(image, like=[attribute.name])
        else:
            assert len(damaged.query(image, like=[attribute.name])) == 10
    with pytest.raises(CorruptStoreError, match=view.name):
        damaged.store.check()


def test_many_requests_are_answered_as_one_by_one(engine: Engine, shop: Shop) -> None:
    images = [shop.catalogue / f"images/{n:03d}.png" for n in (0, 4, 9, 17)]
    requests = [
        Request(image, **names, top_k=3 + number)
        for number, image in enumerate(images)
        for names in QUERIES.values()
    ]
    requests += [Request(images[0], where={"colour": "red"}, like=["shape"])]
    found = engine.query_many(requests)
    for request, result in zip(requests, found, strict=True):
        alone = engine.query(
            request.image, request.present, request.absent, request.like, request.where,
            request.top_k,
        )  # fmt: skip
        assert [hit.row for hit in result] == [hit.row for hit in alone]
        scores = [[hit.score for hit in r] for r in (result, alone)]
        np.testing.assert_allclose(scores[0], scores[1], atol=2e-6)
    with pytest.raises(UsageError, match="unknown value"):
        engine.query_many([requests[0], Request(images[0], present=["rde"])])
    assert engine.query_many([]) == []


def test_a_condition_asked_for_again_and_again_gets_its_view(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.index, tmp_path / "index")
    engine = Engine.open(tmp_path / "index", device="cpu")
    engine.two_stage_from = 1
    condition = engine.schema.condition(["disc"])
    image = shop.catalogue / "images/000.png"
    for _ in range(BUILD_AFTER - 1):
        engine.query(image, present=["disc"], top_k=1)
        assert engine.pool.existing(condition) is None
    engine.query(image, present=["disc"], top_k=1)
    assert engine.pool.existing(condition) is not None
    again = Engine.open(tmp_path / "index", device="cpu")  # another process finds it on disk
    view = again.pool.existing(condition)
    assert view is not None
    np.testing.assert_array_equal(view.vectors, engine.pool.get(condition).vectors)


def test_computed_views_stay_within_the_budget(shop: Shop) -> None:
    engine = Engine.open(shop.index, device="cpu", memory=2 * IMAGES * 32 * 4)
    image = shop.catalogue / "images/000.png"
    for value in ("disc", "square", "gold"):
        engine.query(image, present=[value])
        assert engine.pool.nbytes <= engine.pool.memory
    kept = [engine.pool.existing(engine.schema.condition([v])) for v in ("disc", "square", "gold")]
    assert [view is not None for view in kept] == [False, True, True]


def test_heads_are_kept_and_belong_to_their_condition(engine, shop: Shop) -> None:
    picture = engine.encode(shop.catalogue / "images/007.png")
    conditions = [
        resolve(engine.schema, Request("", **names)).condition for names in QUERIES.values()
    ]
    for condition in conditions:
        z = engine.pool.head(condition)(picture)
        np.testing.assert_allclose(z, picture.embed(engine.model, [condition])[0], atol=1e-5)
    assert engine.pool.head(conditions[0].copy()) is engine.pool.head(conditions[0])
