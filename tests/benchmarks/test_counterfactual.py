"""Garments with one attribute changed, as drawn and as ranked."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.counterfactual import (
    CONFIG,
    config_of,
    evaluate_counterfactual,
    markdown,
    rank_of,
    run_folder,
)
from benchmarks.counterfactual_wardrobe import (
    draw_change,
    draw_counterfactuals,
    is_only_change,
    near_garment,
    shows_second_colour,
    with_value,
)
from benchmarks.measured_rows import with_kept_rows
from benchmarks.wardrobe.cloth import second_ink
from benchmarks.wardrobe.garment import ATTRIBUTES, sample_garment
from training.datasets import catalogue
from training.errors import DataError, UsageError
from training.run import read_config


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counterfactual")
    return folder, draw_counterfactuals(folder, queries=9, others=24, size=48, seed=3)


def table(folder):
    with (folder / "labels.csv").open(newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_change_leaves_the_rest_of_the_garment(attribute):
    for seed in range(6):
        change = draw_change(attribute, 96, np.random.default_rng(seed))
        before, after = change.garment.labels(), change.changed.labels()
        assert [a for a in ATTRIBUTES if before[a] != after[a]] == [attribute]
        field = attribute.replace("-", "_")
        assert replace(change.changed, **{field: before[attribute]}) == change.garment
        assert np.array_equal(second_ink(change.garment), second_ink(change.changed))


def test_what_is_no_single_change():
    rng = np.random.default_rng(0)
    plain = replace(
        sample_garment(rng),
        category="shirt",
        pattern="solid",
        sleeve_length="long-sleeve",
        sleeve_shape="bell-sleeve",
        colour="black",
        second_colour="white",
    )
    assert is_only_change(plain, with_value(plain, "colour", "red"))
    assert not shows_second_colour(plain)
    assert not is_only_change(plain, with_value(plain, "pattern", "striped"))  # in which colour?
    assert not is_only_change(plain, with_value(plain, "sleeve-length", "sleeveless"))
    assert not is_only_change(plain, with_value(plain, "colour", "white"))  # stripes would change
    dress = replace(plain, category="dress", length="knee-length")
    assert not is_only_change(dress, with_value(dress, "length", "cropped"))


def test_near_garments_differ_in_cloth_and_at_most_one_label():
    rng = np.random.default_rng(1)
    for number in range(40):
        target = sample_garment(rng)
        near = near_garment(target, number % 2 == 1, rng)
        differ = [a for a in ATTRIBUTES if target.labels()[a] != near.labels()[a]]
        assert len(differ) == number % 2
        assert np.linalg.norm(np.subtract(target.tint, near.tint)) >= 16


def test_the_folder_is_a_catalogue(drawn):
    folder, queries = drawn
    rows = table(folder)
    assert len(rows) == 9 * 3 + 24
    assert [q.attribute for q in queries] == list(ATTRIBUTES)
    for query in queries:
        own, answer, unchanged = (rows[p] for p in (query.query, query.answer, query.unchanged))
        assert [a for a in ATTRIBUTES if own[a] != answer[a]] == [query.attribute]
        assert answer[query.attribute] == query.wanted
        assert {a: own[a] for a in ATTRIBUTES} == {a: unchanged[a] for a in ATTRIBUTES}
        assert own["item"] == unchanged["item"] != answer["item"]
        pictures = [np.asarray(Image.open(folder / r["image"])) for r in (own, answer, unchanged)]
        assert not np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[0], pictures[2])
    assert draw_counterfactuals(folder, queries=9, others=24, size=48, seed=3) == queries


def test_it_is_drawn_alike_by_two_processes(drawn, tmp_path):
    folder, queries = drawn
    assert (
        draw_counterfactuals(tmp_path, queries=9, others=24, size=48, seed=3, workers=2) == queries
    )
    for path in ("labels.csv", "counterfactual.json", queries[0].answer):
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes()


def test_ranks_are_those_of_a_sort(drawn):
    folder, queries = drawn
    dataset = catalogue.load(folder)
    rng = np.random.default_rng(2)
    scores = rng.integers(4, size=(len(dataset), len(dataset))).astype(np.float32)

    class Drawn:
        ranked_by = "drawn"

        def named(self, query, wanted, unwanted=(), keep=None):
            assert dataset.labels[query, wanted[0]] == -1
            return scores[query]

    report = evaluate_counterfactual(dataset, Drawn(), queries)
    place = {path: row for row, path in enumerate(dataset.paths)}
    ranks = []
    for one in queries:
        query = place[one.query]
        order = sorted(
            (r for r in range(len(dataset)) if r != query), key=lambda r: -scores[query, r]
        )
        ranks.append(1 + order.index(place[one.answer]))
        assert rank_of(scores[query], place[one.answer], query) == ranks[-1]
    assert report["mrr"] == pytest.approx(np.mean([1 / r for r in ranks]))
    assert report["r10"] == np.mean([r <= 10 for r in ranks])
    assert report["attributes"]["colour"]["mrr"] == pytest.approx(1 / ranks[2])
    assert report["queries"] == 9


def test_rows_that_are_not_measured_stay(tmp_path):
    file = tmp_path / "result.json"
    scores = {"mrr": 0.5, "r1": 0.25, "r10": 1.0, "unchanged10": 0.0}

    def row(model, seed, mrr):
        own = {"model": model, "seed": seed, **scores, "mrr": mrr}
        return own | {"attributes": {"colour": {"mrr": mrr}}}

    first = with_kept_rows(file, [row("earlier", 0, 0.3), row("floor", 0, 0.1)], "a")
    assert [r["model"] for r in first] == ["floor", "earlier"]
    file.write_text(f'{{"ground": "a", "rows": {first}}}'.replace("'", '"'))
    both = with_kept_rows(file, [row("earlier", 1, 0.5), row("floor", 0, 0.2)], "a")
    assert [(r["model"], r["seed"], r["mrr"]) for r in both] == [
        ("floor", 0, 0.2),
        ("earlier", 0, 0.3),
        ("earlier", 1, 0.5),
    ]
    file.write_text(f'{{"ground": "a", "rows": {both}}}'.replace("'", '"'))
    part = row("m2fashion", 0, 0.7) | {"variant": "without-asa"}
    whole = row("m2fashion", 0, 0.9) | {"variant": "m2fashion"}
    every = with_kept_rows(file, [part, whole], "a")
    assert [r["mrr"] for r in every] == [0.2, 0.3, 0.5, 0.9, 0.7]
    shown = markdown({"rows": every, "pictures": 52, "queries": 9})
    assert "| M2Fashion | 1 | 0.900 |" in shown
    assert "| M2Fashion, without-asa | 1 | 0.700 |" in shown
    assert with_kept_rows(file, [row("floor", 0, 0.2)], "b") == [row("floor", 0, 0.2)]
    text = markdown({"rows": both, "pictures": 52, "queries": 9})
    assert "| M2Fashion, version 0.1 | 2 | 0.400 ± 0.141 |" in text
    file.write_text("[]")
    with pytest.raises(DataError, match="remove it"):
        with_kept_rows(file, [], "a")


def test_a_variant_is_the_demos_model_without_a_part(tmp_path):
    assert run_folder(tmp_path, "m2fashion", 0) == tmp_path / "run"
    run = run_folder(tmp_path / "demo", "without-asa", 2)
    assert run == tmp_path / "demo" / "run-without-asa-2"
    own, made = read_config(CONFIG), read_config(config_of("without-asa", run))
    assert made == replace(own, model=replace(own.model, spatial="none"))
    assert config_of("m2fashion", run) == CONFIG
    with pytest.raises(UsageError, match="unknown row 'without-eyes'"):
        config_of("without-eyes", run)
