"""Two stages against exact scores of every image, on a gallery of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_index import Shop
from tiny_catalogue import write_tiny_catalogue

from indexer.build import build_index
from indexer.store import open_store
from indexer.views import embed
from retrieval.calibration import NAME, calibrate, load_calibration
from retrieval.engine import Engine
from retrieval.gallery_scores import GalleryScores
from retrieval.picture import pictures_of
from retrieval.request import Request, resolve
from retrieval.two_stage import Shares, TwoStage, scaled_chances
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.models.value_readout import DOUBT, LIKENESS

IMAGES = 900

REQUESTS = {
    "a value": {"present": ["disc"]},
    "two values": {"present": ["colour:red", "square"]},
    "an unwanted value": {"present": ["disc"], "absent": ["blue"]},
    "types": {"like": ["colour", "shape"]},
    "type and value": {"like": ["shape"], "present": ["green"]},
}


@pytest.fixture(scope="module")
def large(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    write_tiny_catalogue(root / "gallery", IMAGES)
    dataset = load_dataset(str(root / "gallery"))
    checkpoint = load_checkpoint(shop.run)
    build_index(dataset, np.arange(IMAGES), checkpoint, root / "index", workers=0)
    return root / "index"


@pytest.fixture
def engine(large: Path) -> Engine:
    return cold(large)


def cold(index: Path) -> Engine:
    """An engine that looks for candidates even here."""
    engine = Engine.open(index, device="cpu")
    engine.two_stage_from, engine.two_stage = 1, TwoStage(engine.store, near=5)
    return engine


@pytest.mark.parametrize("names", REQUESTS.values(), ids=REQUESTS.keys())
def test_what_is_found_has_its_exact_score(engine: Engine, shop: Shop, names) -> None:
    image = shop.catalogue / "images/004.png"
    every = engine.query(image, **names, top_k=IMAGES, search="exact")
    scores = {hit.row: (hit.score, hit.likeness) for hit in every}
    found = cold(engine.store.folder).query(image, **names, top_k=3)
    assert len(found) == 3
    for hit in found:
        assert (hit.score, hit.likeness) == pytest.approx(scores[hit.row], abs=2e-6)
    assert found[0].row == every[0].row


@pytest.mark.parametrize("names", REQUESTS.values(), ids=REQUESTS.keys())
def test_candidates_are_the_best_of_both_rough_rankings(engine: Engine, names) -> None:
    terms = resolve(engine.schema, Request("", **names, top_k=1))
    (picture,) = pictures_of(engine.model, *engine.store.maps(np.array([7])))
    scores = GalleryScores(engine.store, engine.pool, picture, terms)
    shares = Shares(0.4, 0.1)
    found = engine.two_stage.candidates(scores, None, shares)
    assert found is not None
    first = scores.combined(engine.two_stage.by_labels(scores, None), None).total
    among = np.argsort(-first, kind="stable")[:360]
    second = np.zeros(IMAGES)
    for number in terms.spoken:
        condition = engine.schema.type_condition(number)
        z = picture.embed(engine.model, [condition])[0]
        second += embed(engine.store, engine.model, condition) @ z / len(terms.spoken)
    if terms.named:
        kept = engine.two_stage.by_labels(scores, None).kept
        if kept is not None:
            second = (scores.has * second + kept) / (scores.has + 1)
        second = second + scores.weight * scores.presence(None)
    expected = among[np.argsort(-second[among], kind="stable")[:90]]
    near = set()
    for number in {*terms.spoken, *terms.kept}:
        condition = engine.schema.type_condition(number)
        z = picture.embed(engine.model, [condition])[0]
        alike = embed(engine.store, engine.model, condition) @ z
        near |= set(np.argsort(-alike, kind="stable")[:5].tolist())
    assert (np.diff(found) > 0).all()
    # Rows at a cut may differ by rounding.
    assert len(set(found.tolist()) ^ (set(expected.tolist()) | near)) <= 6


def test_a_filter_narrows_before_candidates_are_chosen(engine: Engine, shop: Shop) -> None:
    image = shop.catalogue / "images/004.png"
    where = {"colour": "red"}
    red = engine.store.labels()[:, engine.schema.value("colour:red")] == 1
    found = cold(engine.store.folder).query(image, present=["square"], where=where, top_k=2)
    every = engine.query(image, present=["square"], where=where, top_k=2, search="exact")
    assert red[[hit.row for hit in found]].all()
    assert [hit.row for hit in found] == [hit.row for hit in every]
    assert found.searched == red.sum()


def test_a_calibrated_search_finds_what_was_promised(engine: Engine) -> None:
    found = calibrate(engine.two_stage, engine.pool, recall=0.95)
    assert found.sample == IMAGES
    generator = np.random.default_rng(5)
    hits, true = 0, 0
    for names in REQUESTS.values():
        for row in generator.choice(IMAGES, 6, replace=False).tolist():
            terms = resolve(engine.schema, Request("", **names, top_k=1))
            (picture,) = pictures_of(engine.model, *engine.store.maps(np.array([row])))
            scores = GalleryScores(engine.store, engine.pool, picture, terms)
            exact = np.argsort(-scores.exact().total, kind="stable")[:10]
            rows = engine.two_stage.candidates(scores, None, found.shares(terms, engine.schema))
            hits += 10 if rows is None else len(np.intersect1d(exact, rows))
            true += 10
    assert hits / true >= 0.95


def test_without_a_first_look_there_is_the_second(
    engine: Engine, large: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a gallery whose predictions are too many to hold."""
    monkeypatch.setattr("retrieval.two_stage.LARGEST", 1000)
    (large / NAME).unlink(missing_ok=True)
    try:
        for names in REQUESTS.values():
            found = engine.query(shop.catalogue / "images/000.png", **names, top_k=1)
            right = engine.query(shop.catalogue / "images/000.png", **names, search="exact")
            assert found[0].score == pytest.approx(right[0].score, abs=1e-5)
        assert not engine.two_stage.holds_predictions
        assert 0 < engine.calibration().score.second < 1
    finally:
        (large / NAME).unlink(missing_ok=True)


def test_a_calibration_is_kept_and_belongs_to_its_index(engine: Engine, large: Path) -> None:
    (large / NAME).unlink(missing_ok=True)
    first = engine.calibration()
    assert calibrate(engine.two_stage, engine.pool) == first
    content = engine.store.manifest.content
    assert load_calibration(large, content, first.recall) == first
    assert load_calibration(large, "another", first.recall) is None
    assert load_calibration(large, content, 0.9) is None
    (large / NAME).write_text("{}")
    assert load_calibration(large, content, first.recall) is None


def test_scaled_chances_give_the_cosine_of_the_readout(large: Path) -> None:
    """Up to the directions of doubt and likeness, which are a picture's own."""
    store = open_store(large)
    chances = torch.from_numpy(store.predicted()[:50].astype(np.float32))
    scaled = scaled_chances(chances, store.schema)
    for number in range(len(store.schema.attributes)):
        where = store.schema.slice_of(number)
        for one, two in ((0, 1), (3, 3), (10, 40)):
            p, q = chances[one, where].double(), chances[two, where].double()
            if store.schema.attributes[number].multi:
                p, q = p / p.sum(), q / q.sum()
            lengths = [
                (x @ x + DOUBT**2 * (1 - x @ x).clamp(min=0) + LIKENESS**2).sqrt() for x in (p, q)
            ]
            expected = float(p @ q / (lengths[0] * lengths[1]))
            found = float(scaled[one, where] @ scaled[two, where])
            assert found == pytest.approx(expected, abs=1e-5)
