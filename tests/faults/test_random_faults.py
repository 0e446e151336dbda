"""Faults that are injected at random: a few of each here, very many by `make endurance`."""

from __future__ import annotations

from pathlib import Path

import pytest
from arguments import argument_trials
from check_images import check_images
from flips import KINDS, flips
from kills import killed_steps, random_kills
from small_gallery import SmallGallery


def assert_survived(found: list[str | None], trials: int) -> None:
    assert not any(found), "\n".join(filter(None, found))
    assert len(found) == trials


def test_fault_01_kill_9_at_random_points_of_build_index(tmp_path: Path) -> None:
    assert_survived(random_kills(tmp_path, trials=2, seed=1), 2)


def test_fault_02_killed_between_two_steps_of_a_commit(tmp_path: Path) -> None:
    assert_survived(killed_steps(tmp_path, trials=6, seed=1), 6)


@pytest.mark.parametrize("kind", KINDS)
def test_fault_07_a_flipped_byte(target: SmallGallery, kind: str) -> None:
    assert_survived(flips(target.folder / "index", kind, trials=5, seed=1), 5)


def test_fault_29_any_argument_vector_of_any_command(tmp_path: Path) -> None:
    assert_survived(argument_trials(tmp_path, first=10**9, trials=40), 40)


def test_a_trial_that_goes_wrong_is_counted(
    target: SmallGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness itself can fail: a reader that checks nothing does not survive."""
    from indexer.store import files as store_file

    monkeypatch.setattr(store_file, "_compare", lambda *arguments: None)
    found = flips(target.folder / "index", "shard", trials=10, seed=2)
    assert "differ" in next(filter(None, found))


@pytest.mark.endurance
def test_fault_01_kill_9_very_often(tmp_path: Path) -> None:
    assert_survived(random_kills(tmp_path, trials=60, seed=0), 60)


@pytest.mark.endurance
def test_fault_02_killed_before_every_step_of_a_commit(tmp_path: Path) -> None:
    found = killed_steps(tmp_path, trials=0, seed=0)
    assert len(found) > 100
    assert_survived(found, len(found))


@pytest.mark.endurance
@pytest.mark.parametrize("kind", KINDS)
def test_fault_07_very_many_flipped_bytes(target: SmallGallery, kind: str) -> None:
    assert_survived(flips(target.folder / "index", kind, trials=200, seed=0), 200)


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(4))
def test_fault_20_very_many_malformed_images(seed: int) -> None:
    assert check_images(250, seed).total() == 250


@pytest.mark.endurance
@pytest.mark.parametrize("first", range(0, 5000, 1000))
def test_fault_29_very_many_argument_vectors(tmp_path: Path, first: int) -> None:
    assert_survived(argument_trials(tmp_path, first, trials=1000), 1000)
