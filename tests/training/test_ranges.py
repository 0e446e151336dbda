"""Options that are out of their range, wherever they come from."""

from dataclasses import fields
from pathlib import Path

import pytest

from training.errors import UsageError
from training.models.config import ModelConfig
from training.ranges import Range
from training.recipe import _RANGES, Recipe
from training.run import read_config


def test_a_range_knows_its_ends() -> None:
    closed, opened = Range(0, 1), Range(0, 1, above=True, below=True)
    assert [number in closed for number in (-0.1, 0, 0.5, 1, 1.1)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert [number in opened for number in (0, 1e-9, 0.5, 1)] == [False, True, True, False]
    for wild in (float("nan"), float("inf"), -float("inf")):
        assert wild not in Range(0)
        assert wild not in closed
    assert str(closed) == "at least 0 and at most 1"
    assert str(opened) == "above 0 and below 1"
    assert str(Range(2)) == "at least 2"


def test_every_number_of_a_recipe_has_a_range() -> None:
    numbers = {f.name for f in fields(Recipe) if f.type in ("int", "float")}
    assert set(_RANGES) == numbers


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("recipe", "epochs = 0", r"\[recipe\]: epochs must be at least 1, got 0"),
        ("recipe", "batch_size = 1", "batch_size must be at least 2"),
        ("recipe", "learning_rate = -1.0", "learning_rate must be above 0, got -1.0"),
        ("recipe", "crop = 2.0", "crop must be above 0 and at most 1"),
        ("recipe", "crop = 0", "crop"),
        ("recipe", "drop_maps = 1.0", "drop_maps must be at least 0 and below 1"),
        ("recipe", "temperature = nan", "temperature"),
        ("recipe", "margin = inf", "margin"),
        ("recipe", "positives = 0", "positives"),
        ("recipe", "copies = -2", "copies"),
        ("model", "grid = 0", r"\[model\]: grid must be at least 1 and at most 64, got 0"),
        ("model", "dim = -3", "dim must be at least 2"),
        ("model", "dim = 1000000000", "dim"),
    ],
)
def test_a_number_out_of_its_range_is_refused(
    table: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[{table}]\n{text}\n")
    with pytest.raises(UsageError, match=message):
        read_config(path)


def test_what_is_built_in_code_is_checked_too() -> None:
    with pytest.raises(UsageError, match="epochs"):
        Recipe(epochs=-1)
    with pytest.raises(UsageError, match="dim"):
        ModelConfig(dim=1)
