"""Which images a batch holds: the same from a seed, however many processes share it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training import sampling
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.processes import Processes
from training.recipe import Recipe
from training.sampling import BatchPlan, BatchPlans
from training.schema import Attribute, Schema

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")), Attribute("fit", ("slim", "loose"))))
ROWS = np.array([3, 4, 7, 8, 9, 12, 13, 20, 21, 22, 30], dtype=np.int64)
BATCH = Recipe(epochs=4, batch_size=4)
TRIPLETS = replace(BATCH, sampling="triplets", triplets_per_epoch=14)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (40, 2))
    labels = -np.ones((40, 4), dtype=np.int8)
    for row, (pattern, fit) in enumerate(values):
        labels[row, [pattern, 2 + fit]] = 1
    return Dataset(
        "tiny", tmp_path_factory.mktemp("none"), SCHEMA, [f"{n}.jpg" for n in range(40)], labels,
        np.full(40, -1, dtype=np.int64), (), np.full(40, "train"),
    )  # fmt: skip


def _plans(
    dataset: Dataset, recipe: Recipe, seed: int = 1, shares: int = 1, done: int = 0
) -> list[BatchPlan]:
    return list(BatchPlans(dataset, ROWS, recipe, seed, shares).after(done))


def _rows(plans: list[BatchPlan]) -> list[list[int]]:
    return [plan.rows for plan in plans]


def test_an_epoch_has_every_image_once_but_the_remainder(dataset: Dataset) -> None:
    plans = _plans(dataset, BATCH)
    assert [len(rows) for rows in _rows(plans)] == [4, 4] * 4
    for epoch in range(4):
        seen = [row for plan in plans[2 * epoch : 2 * epoch + 2] for row in plan.rows]
        assert len(set(seen)) == 8
        assert set(seen) <= set(ROWS.tolist())
    assert all(plan.attribute is None for plan in plans)
    everything = _plans(dataset, replace(BATCH, batch_size=100, epochs=1))
    assert sorted(everything[0].rows) == ROWS.tolist()


@pytest.mark.parametrize("recipe", [BATCH, TRIPLETS], ids=["batch", "triplets"])
def test_a_frozen_backbones_images_come_as_one_of_their_copies(
    dataset: Dataset, recipe: Recipe
) -> None:
    plans = _plans(dataset, replace(recipe, copies=2, epochs=30))
    assert all(len(plan.copies) == len(plan.rows) for plan in plans)
    counts = np.bincount([copy for plan in plans for copy in plan.copies])
    assert len(counts) == 3  # itself, and two copies
    assert counts.min() > 0.2 * counts.sum()
    again = _plans(dataset, replace(recipe, copies=2, epochs=30), done=29)
    last = plans[-len(again) :]
    assert [(p.rows, p.copies) for p in again] == [(p.rows, p.copies) for p in last]
    for none in (replace(recipe, copies=0), replace(recipe, freeze="none")):
        assert not any(copy for plan in _plans(dataset, none) for copy in plan.copies)
    shares = [plans[0].order(Processes(rank, 2)) for rank in range(2)]
    assert shares[0].rows + shares[1].rows == plans[0].rows
    assert shares[0].copies + shares[1].copies == plans[0].copies


def test_a_triplet_lies_side_by_side_with_its_attribute(dataset: Dataset) -> None:
    plans = _plans(dataset, TRIPLETS)
    assert len(plans) == 14 // 4 * 4
    for plan in plans:
        assert len(plan.rows) == 12
        assert plan.attribute is not None
        assert set(plan.rows) <= set(ROWS.tolist())
        for number in range(4):
            (attribute,) = set(plan.attribute[3 * number : 3 * number + 3].tolist())
            own = dataset.labels[plan.rows[3 * number : 3 * number + 3], SCHEMA.slice_of(attribute)]
            assert np.array_equal(own[0], own[1])
            assert not np.array_equal(own[0], own[2])


@pytest.mark.parametrize("recipe", [BATCH, TRIPLETS], ids=["batch", "triplets"])
def test_a_seed_gives_the_same_batches_and_another_others(dataset: Dataset, recipe: Recipe) -> None:
    first = _rows(_plans(dataset, recipe))
    assert _rows(_plans(dataset, recipe)) == first
    assert _rows(_plans(dataset, recipe, seed=2)) != first
    assert len({tuple(rows) for rows in first}) == len(first)  # no batch twice


@pytest.mark.parametrize("recipe", [BATCH, TRIPLETS], ids=["batch", "triplets"])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_resumed_run_has_the_rest(dataset: Dataset, recipe: Recipe, done: int) -> None:
    whole = _plans(dataset, recipe)
    rest = _plans(dataset, recipe, done=done)
    steps = len(whole) // 4
    assert _rows(rest) == _rows(whole)[done * steps :]
    for one, other in zip(rest, whole[done * steps :], strict=True):
        np.testing.assert_equal(one.attribute, other.attribute)


@pytest.mark.parametrize("recipe", [BATCH, TRIPLETS], ids=["batch", "triplets"])
@pytest.mark.parametrize("shares", [2, 4])
def test_the_shares_end_to_end_are_what_one_process_has(
    dataset: Dataset, recipe: Recipe, shares: int
) -> None:
    whole, shared = _plans(dataset, recipe), _plans(dataset, recipe, shares=shares)
    assert len(whole) == len(shared)
    for one, plan in zip(whole, shared, strict=True):
        parts = [Processes(rank, shares).share(len(plan.rows)) for rank in range(shares)]
        assert [row for part in parts for row in plan.rows[part]] == one.rows
        assert {len(plan.rows[part]) for part in parts} == {len(one.rows) // shares}
        if plan.attribute is not None:  # no triplet is torn apart
            assert all(part.start % 3 == 0 and part.stop % 3 == 0 for part in parts)
            np.testing.assert_array_equal(plan.attribute, one.attribute)


def test_a_small_split_is_shared_evenly(dataset: Dataset) -> None:
    """One process has all 11 images in its batch, two leave the odd one out."""
    recipe = replace(BATCH, batch_size=100, epochs=1)
    (plan,) = _plans(dataset, recipe, shares=2)
    assert len(plan.rows) == 10
    assert len(set(plan.rows)) == 10


def _refused(rows: NDArray[np.int64], batch_size: int, shares: int, dataset: Dataset) -> str:
    with pytest.raises(UsageError) as caught:
        BatchPlans(dataset, rows, replace(BATCH, batch_size=batch_size), 0, shares)
    return str(caught.value)


def test_what_cannot_be_shared_is_refused(dataset: Dataset) -> None:
    message = _refused(ROWS, 7, 2, dataset)
    assert "a batch of 7 cannot be shared by 2 processes evenly" in message
    assert "a multiple of 2" in message
    assert "4 processes cannot share 3 training images" in _refused(ROWS[:3], 8, 4, dataset)


def test_partners_show_the_same_item_or_another_copy(dataset: Dataset) -> None:
    """Rows 3 and 4 show one item, 7 to 9 another; row 5 shows that of 3 but is not trained on."""
    items = np.arange(40)
    items[[3, 4, 5]], items[[7, 8, 9]] = 100, 200
    recipe = replace(BATCH, batch_size=8, epochs=40, copies=2)
    plans = BatchPlans(replace(dataset, items=items), ROWS, recipe, 1, partners=True).after(0)
    others = {3: {4}, 4: {3}, 7: {8, 9}, 8: {7, 9}, 9: {7, 8}}
    met: dict[int, set[int]] = {}
    turns: set[int] = set()
    for plan in plans:
        assert len(plan.rows) == len(plan.copies) == 8
        for first in range(0, 8, 2):
            (row, partner), copies = plan.rows[first : first + 2], plan.copies[first : first + 2]
            if row in others:
                met.setdefault(row, set()).add(partner)
            else:
                assert partner == row
                assert copies[0] != copies[1]
        turns |= set(plan.rows)
    assert met == others
    assert turns == set(ROWS.tolist())


def test_what_has_no_label_gives_its_place_to_what_has(dataset: Dataset) -> None:
    """3, 7, 8 and 20 are labelled, 9 has a category; nothing is known of the other six."""
    known, labels, category = [3, 7, 8, 20, 9], np.zeros_like(dataset.labels), dataset.category
    labels[known[:4]], category = dataset.labels[known[:4]], np.where(np.arange(40) == 9, 0, -1)
    some = replace(dataset, labels=labels, category=category)
    plans = BatchPlans(some, ROWS, BATCH, 1)
    assert plans.steps == len(ROWS) // 4  # as if all were labelled
    first, second = _rows(list(plans.after(3)))
    assert len(set(first)) == 4  # each once before any comes again
    assert set(first + second) == set(known)
    many = np.arange(40)
    turns = [row for plan in BatchPlans(some, many, BATCH, 1).after(3) for row in plan.rows]
    assert len(turns) == sampling.TURNS * 5 // 4 * 4
    assert max(turns.count(row) for row in known) == sampling.TURNS
    with pytest.raises(DataError, match="tiny: the train split has 1 readable images with a label"):
        BatchPlans(some, many[:4], BATCH, 1)
