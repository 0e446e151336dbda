"""Options that are out of their range, of a wrong type or name, wherever they come from."""

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from training.errors import DataError, UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.recipe import Recipe
from training.run import RunConfig, read_config
from training.validated import validated


def test_every_number_of_a_recipe_has_a_range() -> None:
    hints = get_type_hints(Recipe, include_extras=True)
    bare = [f.name for f in fields(Recipe) if hints[f.name] in (int, float)]
    assert bare == []


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("recipe", "epochs = 0", r"recipe\.epochs = 0: Expected `int` >= 1"),
        ("recipe", "batch_size = 1", r"recipe\.batch_size = 1: Expected `int` >= 2"),
        ("recipe", "learning_rate = -1.0", r"learning_rate = -1\.0: Expected `float` > 0"),
        ("recipe", "crop = 2.0", "crop = 2.0: Expected `float` <= 1"),
        ("recipe", "crop = 0", "crop = 0: Expected `float` > 0"),
        ("recipe", "drop_maps = 1.0", "drop_maps = 1.0: Expected `float` < 1"),
        ("recipe", "temperature = nan", "temperature"),
        ("recipe", "margin = inf", "margin"),
        ("recipe", "positives = 0", "positives"),
        ("recipe", "copies = -2", "copies"),
        ("model", "grid = 0", r"model\.grid = 0: Expected `int` >= 1"),
        ("model", "grid = 65", r"model\.grid = 65: Expected `int` <= 64"),
        ("model", "dim = -3", "dim = -3: Expected `int` >= 2"),
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
    with pytest.raises(UsageError, match="epochs = -1"):
        Recipe(epochs=-1)
    with pytest.raises(UsageError, match="dim = 1"):
        ModelConfig(dim=1)
    with pytest.raises(UsageError, match="seed = -1"):
        RunConfig(seed=-1)
    with pytest.raises(UsageError, match=r"resize must be 0 or 224\.\.4096, got 100"):
        Preprocessing(resize=100)


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(UsageError, match="here: unknown option 'epoch'; there are epochs"):
        validated(Recipe, {"epoch": 3}, "here")
    with pytest.raises(DataError, match=r"here: recipe\.margin = 'x': Expected `float`, got `str`"):
        validated(RunConfig, {"recipe": {"margin": "x"}}, "here", DataError)
