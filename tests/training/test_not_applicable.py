"""Attributes that do not apply: read from tables, as a class of the softmax, in pairs and triplets,
under temperatures, and thresholds of values; against loops in Python."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.store.gallery import align_labels
from training.datasets import load_dataset
from training.losses import type_pairs, value_loss
from training.models.config import ModelConfig
from training.models.embedder import LABELLED, ValueReadout, chances_of
from training.models.m2fashion import M2Fashion
from training.run import LEAST_SHOWN, best_thresholds, true_chances
from training.sampling import TripletSampler
from training.schema import Attribute, Schema

KIND = Attribute("kind", ("dress", "shirt", "trousers"))
SLEEVE = Attribute("sleeve", ("long", "short"), optional=True)
TRIM = Attribute("trim", ("lace", "gold"), multi=True, optional=True)
SCHEMA = Schema((KIND, SLEEVE, TRIM))


def states(*rows: str) -> np.ndarray:
    """Label states of rows such as `dress long -`; `-` does not apply, `?` is unknown."""
    out = np.zeros((len(rows), SCHEMA.size), dtype=np.int8)
    for row, text in enumerate(rows):
        for number, cell in enumerate(text.split()):
            if cell != "?":
                out[row, SCHEMA.slice_of(number)] = -1
            if cell not in ("?", "-"):
                for value in cell.split("|"):
                    out[row, SCHEMA.value_of(SCHEMA.attributes[number].name, value)] = 1
    return out


LABELS = states(
    *("dress long lace", "shirt short ?", "trousers - -", "trousers - gold", "shirt ? lace|gold"),
    *("dress short -", "trousers - ?", "shirt long lace"),
)


def test_tables_say_it_and_empty_cells_do_not(tmp_path: Path) -> None:
    cells = ("long", "Not Applicable", "not_applicable", "n/a", "", "NotApplicable", "short")
    hood = ("yes", *["not-applicable"] * 3, "yes", "", "")
    lines = ["image,split,kind,sleeve,hood"]
    for number, (sleeve, has) in enumerate(zip(cells, hood, strict=True)):
        lines.append(f"{number}.jpg,train,{'shirt' if number % 2 else 'dress'},{sleeve},{has}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset = load_dataset(str(tmp_path))
    schema = dataset.schema
    assert schema.attributes[1:] == (
        Attribute("sleeve", ("long", "short"), optional=True),
        Attribute("hood", ("yes",), optional=True),  # of one value, which not all have
    )
    lacking = schema.inapplicable(dataset.labels)
    assert np.flatnonzero(lacking[:, 1]).tolist() == [1, 2, 5]
    assert np.flatnonzero(lacking[:, 2]).tolist() == [1, 2, 3]
    assert not lacking[:, 0].any()
    assert np.flatnonzero(~schema.labelled(dataset.labels)[:, 1]).tolist() == [3, 4]
    assert (dataset.labels[[3, 4], schema.slice_of(1)] == 0).all()
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_a_schema_without_such_attributes_reads_as_before() -> None:
    plain = Schema((KIND, replace(SLEEVE, optional=False)))
    assert all(set(own) == {"name", "values", "multi"} for own in plain.to_json()["attributes"])
    assert plain.hash != Schema((KIND, SLEEVE)).hash


def test_aligned_labels_do_not_take_an_unknown_value_for_none() -> None:
    wide = Schema((KIND, replace(SLEEVE, values=("long", "cap", "short"))))
    labels = np.array([[1, -1, -1, -1, 1, -1], [1, -1, -1, -1, -1, -1], [-1, 1, -1, 1, -1, -1]])
    narrow = Schema((SLEEVE, KIND))
    found, _ = align_labels(labels.astype(np.int8), wide, narrow)
    assert found[:, :2].tolist() == [[0, 0], [-1, -1], [1, -1]]
    fewer = Schema((KIND, SLEEVE))  # and the other way round: values that the source lacks
    found, _ = align_labels(np.array([[1, -1, -1, -1, -1]], dtype=np.int8), fewer, wide)
    assert found.tolist() == [[1, -1, -1, -1, -1, -1]]


def test_the_loss_has_one_more_class_whose_logit_is_0() -> None:
    logits = torch.randn(len(LABELS), SCHEMA.size, dtype=torch.float64, requires_grad=True)
    found = value_loss(logits, torch.from_numpy(LABELS).double(), SCHEMA)
    slow = []
    for number, attribute in enumerate(SCHEMA.attributes):
        terms = []
        for row, own in zip(LABELS[:, SCHEMA.slice_of(number)], logits.tolist(), strict=True):
            said = own[SCHEMA.slice_of(number)]
            if attribute.multi:
                terms += [math.log1p(math.exp(-x * s)) for x, s in zip(said, row, strict=True) if s]
                continue
            total = sum(map(math.exp, said)) + (1 if attribute.optional else 0)
            true = [x for x, s in zip(said, row, strict=True) if s == 1]
            if true or (row == -1).all():
                terms.append(math.log(total) - (true[0] if true else 0))
        slow.append(sum(terms) / len(terms))
    assert found.item() == pytest.approx(np.mean(slow))
    found.backward()
    lacking = torch.from_numpy(SCHEMA.inapplicable(LABELS)[:, 1])
    assert (logits.grad[lacking, SCHEMA.slice_of(1)] > 0).all()  # away from every value


def test_pairs_are_apart_from_what_has_a_value_and_nothing_to_each_other() -> None:
    pairs = type_pairs(torch.from_numpy(LABELS), SCHEMA)
    for number in range(3):
        own = LABELS[:, SCHEMA.slice_of(number)]
        for a in range(len(own)):
            for b in range(len(own)):
                has = [(own[one] == 1).any() for one in (a, b)]
                none = [number > 0 and (own[one] == -1).all() for one in (a, b)]
                share = bool(((own[a] == 1) & (own[b] == 1)).any())
                known = all(h or n for h, n in zip(has, none, strict=True)) and any(has)
                assert bool(pairs.positive[number, a, b]) == (share and a != b)
                assert bool(pairs.negative[number, a, b]) == (known and not share)


def test_negatives_of_triplets_may_be_such_but_nothing_else() -> None:
    rows = np.arange(len(LABELS))
    sampler = TripletSampler(LABELS, SCHEMA, rows)
    drawn = sampler.sample(4000, torch.Generator().manual_seed(0))
    anchor, positive, negative = (LABELS[row, drawn.value] for row in drawn.rows)
    assert (anchor == 1).all()
    assert (positive == 1).all()
    assert (negative == -1).all()
    sleeves = drawn.rows[2][drawn.attribute == 1]
    assert {2, 3, 6} < set(sleeves.tolist())


def test_chances_leave_room_and_are_the_same_to_the_model() -> None:
    torch.manual_seed(0)
    model = M2Fashion(SCHEMA, ModelConfig("small", "layer2", grid=4, dim=16)).eval()
    assert (
        M2Fashion(
            Schema(tuple(replace(a, optional=False) for a in SCHEMA.attributes)), model.config
        )
        .state_dict()
        .keys()
        == model.state_dict().keys()
    )  # nothing to learn more
    z = torch.randn(6, 3, 16)
    chances = model.chances(z)
    logits = model.value_logits(z)[:, SCHEMA.slice_of(1)].exp()
    left = SCHEMA.left_over(chances.detach().numpy())
    torch.testing.assert_close(
        chances[:, SCHEMA.slice_of(1)], logits / (1 + logits.sum(1))[:, None]
    )
    np.testing.assert_allclose(left[:, 1], 1 / (1 + logits.sum(1).detach()), atol=1e-6)
    trim = chances[:, SCHEMA.slice_of(2)].detach().numpy()
    np.testing.assert_allclose(left[:, 2], (1 - trim[:, 0]) * (1 - trim[:, 1]), rtol=1e-5)
    assert (left[:, 0] == 0).all()
    condition = torch.from_numpy(SCHEMA.type_condition(1)).float()[None, None]
    torch.testing.assert_close(
        model.values(z[:, 1:2], condition)[:, 0, SCHEMA.slice_of(1)], chances[:, SCHEMA.slice_of(1)]
    )


def test_temperatures_count_it_and_sets_hold_it() -> None:
    schema = Schema((SLEEVE,))
    readout, generator = ValueReadout(schema, 4), torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 2, generator=generator)
    every = torch.nn.functional.pad(logits, (0, 1)).softmax(-1)
    true = torch.multinomial(every, 1, generator=generator)
    labels = torch.full((4000, 3), -1).scatter_(1, true, 1)[:, :2].to(torch.int8)
    found = readout.calibrate(chances_of(3 * logits, SLEEVE), labels)
    assert readout.temperatures.tolist() == pytest.approx([3], rel=0.08)
    torch.testing.assert_close(found, every[:, :2], rtol=0, atol=0.03)
    noted = true_chances(schema, every[:, :2].numpy(), labels.numpy())["sleeve"]
    slow = sorted(every.gather(1, true)[:, 0].tolist())
    assert noted[10] == pytest.approx(slow[int(0.1 * 3999)], abs=1e-4)


def test_thresholds_are_those_of_the_best_expected_f1_value_by_value() -> None:
    many = Attribute("many", ("often", "rare", "seldom"), multi=True)
    few = replace(many, name="few")
    schema, rng = Schema((KIND, many, few)), np.random.default_rng(0)
    chances = (rng.random((300, 9)) * [*[1] * 3, 1, 0.1, 0.4, *[1] * 3]).astype(np.float32)
    labels = np.where(rng.random((300, 9)) < chances, 1, -1).astype(np.int8)
    labels[:, 4] = np.where(np.arange(300) < LEAST_SHOWN - 1, 1, -1)
    labels[::3, 3:6] = 0
    labels[LABELLED - 1 :, 6:] = 0
    found = best_thresholds(schema, chances, labels)
    assert list(found) == ["many"]
    rows = [row for row in range(300) if (labels[row, 3:6] == 1).any()]
    for number, threshold in enumerate(found["many"]):
        columns = [3, 4, 5] if number == 1 else [3 + number]
        own = [float(chances[row, column]) for row in rows for column in columns]

        def expected_f1(cut: float, own: list[float] = own) -> float:
            said = [chance for chance in own if chance >= cut]
            return 2 * sum(said) / (len(said) + sum(own)) if said else 0.0

        assert expected_f1(threshold) == pytest.approx(max(map(expected_f1, own)))
        assert threshold == pytest.approx(expected_f1(threshold) / 2, abs=1e-5)
