"""Tags against slow loops and scikit-learn; wrong labels are found."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from small_index import run

from retrieval.evaluation.tagging import AIM, BINS, coverage, evaluate_tags
from retrieval.tags import Predicted, support_of
from training.datasets.dataset import Dataset
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("colour", ("red", "green", "blue"), multi=True),
        Attribute("kind", ("dress", "shirt", "shoe", "bag")),
        Attribute("sole", ("flat", "heel")),
    )
)


def example(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Label states with gaps, and chances that know something of them; soles go with shoes."""
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 4, count)
    present = np.zeros((count, SCHEMA.size), dtype=bool)
    present[:, :3] = rng.random((count, 3)) < 0.4
    present[np.arange(count), 3 + kind] = True
    present[np.arange(count), np.where(kind == 2, 7, 8)] = True
    logits = 3.0 * present + 1.2 * rng.normal(size=present.shape)
    chances = 1 / (1 + np.exp(1 - logits))
    for own in (SCHEMA.slice_of(1), SCHEMA.slice_of(2)):
        chances[:, own] = np.exp(logits[:, own])
        chances[:, own] /= chances[:, own].sum(1, keepdims=True)
    labels = np.where(present, 1, -1).astype(np.int8)
    for number in range(3):
        own = SCHEMA.slice_of(number)
        hidden = ~present[:, own].any(1) | (rng.random(count) < 0.2)
        labels[hidden, own] = 0
    return labels, chances.astype(np.float32)


def dataset(labels: np.ndarray) -> Dataset:
    count = len(labels)
    paths, splits = [f"{n}.png" for n in range(count)], np.full(count, "test")
    category = np.full(count, -1, dtype=np.int64)
    return Dataset("toy", Path(), SCHEMA, paths, labels, category, (), splits)


def test_figures_are_scikit_learns() -> None:
    labels, chances = example()
    report = evaluate_tags(dataset(labels), chances)
    assert report is not None
    for number, attribute in enumerate(SCHEMA.attributes):
        own, score = SCHEMA.slice_of(number), report.attributes[attribute.name]
        rows = (labels[:, own] == 1).any(1)
        true, p = labels[rows, own] == 1, chances[rows, own]
        said = p >= 0.5 if attribute.multi else np.eye(p.shape[1], dtype=bool)[p.argmax(1)]
        said[np.arange(len(p)), p.argmax(1)] = True
        assert score.images == rows.sum()
        assert score.accuracy == pytest.approx(accuracy_score(true, said))
        each = f1_score(true, said, average=None, zero_division=0)
        assert list(score.values) == list(attribute.values)
        for value, f1, count in zip(attribute.values, each, true.sum(0), strict=True):
            assert score.values[value].f1 == pytest.approx(f1)
            assert score.values[value].images == count
        assert score.f1 == pytest.approx(f1_score(true, said, average="macro"))
        kinds = [tuple(row) for row in true.tolist()]
        assert score.frequent == max(kinds.count(kind) for kind in kinds) / len(kinds)
        # Coverage, threshold by threshold.
        right, sure = (true == said).all(1), np.where(said, p, 2).min(1)
        best: tuple = (0.0, None)
        for least in sorted(set(sure.tolist())):
            kept = sure >= least
            if right[kept].mean() >= AIM:
                best = max(best, (kept.mean(), least), key=lambda b: b[0])
        assert (score.coverage, score.confidence) == pytest.approx(best)
        pairs = list(zip(p.max(1), true[np.arange(len(p)), p.argmax(1)], strict=True))
        if attribute.multi:
            pairs = list(zip(p.ravel(), true.ravel(), strict=True))
        error = 0.0
        for place in range(BINS):
            inside = [pair for pair in pairs if min(int(pair[0] * BINS), BINS - 1) == place]
            error += abs(sum(chance - float(is_true) for chance, is_true in inside)) / len(pairs)
        assert score.calibration_error == pytest.approx(error, abs=1e-6)
    assert any(0 < score.coverage < 1 for score in report.attributes.values())
    mean = np.mean([score.accuracy for score in report.attributes.values()])
    assert report.accuracy == pytest.approx(mean)


def test_equal_chances_are_kept_or_left_together() -> None:
    right = np.array([True] * 30 + [False])
    assert coverage(right, np.full(31, 0.5, np.float32)) == (1.0, 0.5)
    assert coverage(right[20:], np.full(11, 0.5, np.float32)) == (0.0, None)
    assert coverage(~right, np.linspace(1, 0, 31, dtype=np.float32)) == (0.0, None)


def test_nothing_labelled_is_not_measured() -> None:
    labels, chances = example(5)
    assert evaluate_tags(dataset(labels * 0), chances) is None


def test_support_is_a_slow_naive_bayes_at_a_third_of_its_weight() -> None:
    labels, chances = example(60)
    got = support_of(SCHEMA, labels, chances)
    owner = SCHEMA.attribute_of

    def known(row: int, attribute: int) -> bool:
        return bool((labels[row, SCHEMA.slice_of(attribute)] == 1).any())

    def lift(told: int, value: int) -> float:
        rows = [r for r in range(60) if known(r, owner[value])]
        share = sum(labels[r, value] == 1 for r in rows) / len(rows)
        beside = [r for r in rows if labels[r, told] == 1]
        both = sum(labels[r, value] == 1 for r in beside)
        return (both + 10 * share) / (len(beside) + 10) / share

    for row in range(60):
        for number, attribute in enumerate(SCHEMA.attributes):
            if not known(row, number):
                assert np.isnan(got[row, number])
                continue
            values = range(*SCHEMA.offsets[number : number + 2])
            told = [u for u in range(SCHEMA.size) if labels[row, u] == 1 and owner[u] != number]
            weight = {v: math.prod(lift(u, v) for u in told) ** 0.35 for v in values}
            score = {v: float(chances[row, v]) * weight[v] for v in values}
            rest = sum(score.values())
            fit = {
                v: s / (s + 1 - float(chances[row, v])) if attribute.multi else s / rest
                for v, s in score.items()
            }
            states = [fit[v] if labels[row, v] == 1 else 1 - fit[v] for v in values]
            assert got[row, number] == pytest.approx(min(states), abs=1e-4)


def test_of_several_values_those_from_the_threshold_on_count_or_the_likeliest() -> None:
    chances = np.array([[0.9, 0.5, 0.1, 0.2, 0.4, 0.2, 0.2, 0.5, 0.5], [0.2] * 9], np.float32)
    found = Predicted.of(SCHEMA, chances)
    assert [np.flatnonzero(row).tolist() for row in found.values] == [[0, 1, 4, 7], [0, 3, 7]]
    np.testing.assert_allclose(found.chances, [[0.5, 0.4, 0.5], [0.2, 0.2, 0.2]])


def test_swapped_labels_are_listed_first_and_drawn(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, chances = example(80)
    labels[:, SCHEMA.slice_of(0)] = 0
    swapped = {3: "kind", 17: "kind", 40: "sole"}
    with open(tmp_path / "labels.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "kind", "sole"])
        for row in range(80):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{row}.png")
            cells = [f"{row}.png"]
            for number in (1, 2):
                own, attribute = SCHEMA.slice_of(number), SCHEMA.attributes[number]
                true = int(chances[row, own].argmax())
                chances[row, own] = 0.1 / (len(attribute.values) - 1)
                chances[row, own.start + true] = 0.9
                wrong = swapped.get(row) == attribute.name
                cells.append(attribute.values[(true + wrong) % len(attribute.values)])
            writer.writerow(cells)

    class Loaded:
        schema = SCHEMA
        training = MappingProxyType({})

    def predict(checkpoint, device, root, paths, progress):
        rows = [int(Path(path).stem) for path in paths]
        yield chances[rows[:50]]
        yield np.where(np.array(rows[50:])[:, None] == 60, np.nan, chances[rows[50:]])

    monkeypatch.setattr("training.checkpoint.load_checkpoint", lambda *_: Loaded)
    monkeypatch.setattr("retrieval.tags.predict", predict)
    options = ("--suspicious", "--checkpoint", "x", "--sheet", tmp_path / "doubt.png")
    code, text, err = run(capsys, "inspect", "--dataset", tmp_path, *options, "--json")
    assert code == 0, err
    found = json.loads(text)["suspicious"]
    assert {(f["path"], f["attribute"]) for f in found} == {
        (f"{row}.png", name) for row, name in swapped.items()
    }
    assert [f["support"] for f in found] == sorted(f["support"] for f in found)
    assert all(f["known"] != f["predicted"] for f in found)
    assert (tmp_path / "doubt.png").is_file()
    for few in (options[:1], options[1:3], options[3:]):
        code, text, err = run(capsys, "inspect", "--dataset", tmp_path, *few)
        assert (code, text) == (2, "")
        assert "--suspicious" in err


def test_none_is_predicted_where_it_is_likeliest_and_thresholds_are_the_values_own() -> None:
    colour, kind, sole = SCHEMA.attributes
    schema = Schema((replace(colour, optional=True), kind, replace(sole, optional=True)))
    chances = np.array(
        [
            [0.2, 0.1, 0.1, 0.4, 0.3, 0.2, 0.1, 0.2, 0.1],  # nothing of colour, nor of sole
            [0.35, 0.1, 0.1, 0.4, 0.3, 0.2, 0.1, 0.4, 0.3],  # red by its threshold; flat
            [0.35, 0.6, 0.25, 0.4, 0.3, 0.2, 0.1, 0.3, 0.1],  # red and blue: green needs more
        ],
        np.float32,
    )
    least = np.array([0.3, 0.7, 0.2, *[0.5] * 6], np.float32)
    found = Predicted.of(schema, chances, least)
    assert [np.flatnonzero(row).tolist() for row in found.values] == [[3], [0, 3, 7], [0, 2, 3]]
    none = 0.8 * 0.9 * 0.9
    expected = [[none, 0.4, 0.7], [0.35, 0.4, 0.4], [0.25, 0.4, 0.6]]
    np.testing.assert_allclose(found.chances, expected, rtol=1e-5)
    assert found.sure.tolist() == [[True, False, True], [True, False, False], [True, False, True]]


def test_images_known_to_lack_an_attribute_are_right_if_nothing_is_predicted() -> None:
    labels, chances = example()
    schema = Schema((*SCHEMA.attributes[:2], replace(SCHEMA.attributes[2], optional=True)))
    sole = schema.slice_of(2)
    lacking = (labels[:, 3] == 1) & (labels[:, sole] != 0).any(1)
    labels[lacking, sole] = -1
    chances[:, sole] *= np.where(lacking, 0.1, 0.9)[:, None]
    chances[np.flatnonzero(lacking)[:5], sole.start] = 0.95  # these are wrong
    report = evaluate_tags(replace(dataset(labels), schema=schema), chances)
    assert report is not None
    score = report.attributes["sole"]
    rows = np.flatnonzero((labels[:, sole] != 0).any(1))
    true = [v[0] if len(v := np.flatnonzero(labels[r, sole] == 1)) else 2 for r in rows]
    every = np.hstack([chances[rows, sole], 1 - chances[rows, sole].sum(1, keepdims=True)])
    assert score.images == len(rows)
    assert score.accuracy == pytest.approx(accuracy_score(true, every.argmax(1)))
    assert score.frequent == max(true.count(k) for k in range(3)) / len(true)
    error = 0.0
    for low in range(BINS):
        inside = [n for n, c in enumerate(every.max(1)) if min(int(c * BINS), BINS - 1) == low]
        error += abs(sum(every[n].max() - (every[n].argmax() == true[n]) for n in inside))
    assert score.calibration_error == pytest.approx(error / len(rows), abs=1e-6)
    assert sum(one.predictions for one in score.reliability) == len(rows)
    # It goes with what else is known: dresses have no sole.
    support = support_of(schema, labels, chances)[:, 2]
    assert np.isnan(support).sum() == len(labels) - len(rows)
    wrong = np.flatnonzero(lacking)[:5]
    assert support[wrong].max() < np.sort(support[lacking])[5]
