"""Faults that are injected at random: a few of each here, very many by `make endurance`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.endurance.arguments import argument_trials
from benchmarks.endurance.flips import KINDS, flips
from benchmarks.endurance.kills import killed_steps, random_kills
from benchmarks.endurance.outcome import Outcome
from benchmarks.endurance.small_gallery import SmallGallery


def assert_survived(found: Outcome, trials: int) -> None:
    assert not found.failures, "\n".join(found.failures)
    assert (found.trials, found.survived) == (trials, trials)


def test_fault_01_kill_9_at_random_points_of_build_index(tmp_path: Path) -> None:
    assert_survived(random_kills(tmp_path, trials=2, seed=1), 2)


def test_fault_02_killed_between_two_steps_of_a_commit(tmp_path: Path) -> None:
    assert_survived(killed_steps(tmp_path, trials=6, seed=1), 6)


@pytest.mark.endurance
def test_fault_02_killed_before_every_step_of_a_commit(tmp_path: Path) -> None:
    found = killed_steps(tmp_path, trials=0, seed=0)
    assert found.trials > 100
    assert_survived(found, found.trials)


@pytest.mark.parametrize("kind", KINDS)
def test_fault_07_a_flipped_byte(target: SmallGallery, kind: str) -> None:
    assert_survived(flips(target.folder / "index", kind, trials=5, seed=1), 5)


def test_fault_29_any_argument_vector_of_any_command(tmp_path: Path) -> None:
    assert_survived(argument_trials(tmp_path, trials=40, first=10**9, workers=1), 40)


def test_a_trial_that_goes_wrong_is_counted(target: SmallGallery, monkeypatch) -> None:
    """The harness itself can fail: a reader that checks nothing does not survive."""
    from indexer import store_file

    monkeypatch.setattr(store_file, "_compare", lambda *arguments: None)
    found = flips(target.folder / "index", "shard", trials=10, seed=2)
    assert found.survived < 10
    assert "differ" in found.failures[0]
