"""Row files give the run configs that they say, and the project's own files are sound."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.models.table3 import own_recipes
from benchmarks.tables.keys import Ground
from benchmarks.tables.measure import Runs
from benchmarks.tables.options import Setting
from benchmarks.tables.row_file import (
    ABLATIONS,
    MAP,
    TABLE_2,
    RowFile,
    chosen_names,
    config_toml,
    read_row_file,
    with_row,
)
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.models.config import ModelConfig
from training.recipe import Recipe
from training.run import RunConfig, read_config

TEXT = """
title = "Some rows"
reference = "plain"
[base.model]
grid = 5
[base.recipe]
epochs = 8
[base.preprocessing]
size = 96
[recipes.quick]
learning_rate = 0.01
margin = 0.5
[rows]
floor = { title = "the floor", floor = true }
plain = { recipes = ["quick"], recipe = { margin = 0.4 } }
mean = { title = "GMP", variant = "gmp", model = { dim = 64 } }
[tuned.shop-small]
"*" = { epochs = 6, crop = 0.8 }
mean = { epochs = 5 }
"""


@pytest.fixture
def table(tmp_path: Path) -> RowFile:
    path = tmp_path / "rows.toml"
    path.write_text(TEXT)
    return read_row_file(path)


def config(table: RowFile, row: str, dataset: str = "shop", seed: int = 3) -> RunConfig:
    return table.config(table.rows[row], f"{dataset}-small", "small", None, seed)


def test_a_row_is_base_then_recipes_then_its_own_then_tuned(table: RowFile) -> None:
    plain = config(table, "plain", dataset="other")
    assert plain.model == ModelConfig(backbone="small", grid=5)
    # Without weights the backbone is trained.
    assert plain.recipe == Recipe(epochs=8, learning_rate=0.01, margin=0.4, freeze="none")
    assert (plain.preprocessing.size, plain.seed, plain.weights) == (96, 3, None)
    tuned = config(table, "plain")
    assert tuned.recipe == replace(plain.recipe, epochs=6, crop=0.8)
    mean = config(table, "mean")
    assert mean.model == ModelConfig(backbone="small", grid=5, dim=64, pooling="max")
    assert mean.recipe == Recipe(epochs=5, crop=0.8, freeze="none")
    assert table.rows["plain"].title == "plain"
    assert table.rows["floor"].floor


def test_a_row_over_another_config_changes_only_what_it_names(table: RowFile) -> None:
    small = RunConfig(ModelConfig("small", pooling="mean", dim=32), Recipe(epochs=24), seed=5)
    assert with_row(small, table.rows["mean"]) == replace(
        small, model=replace(small.model, pooling="max", dim=64)
    )
    assert with_row(small, table.rows["plain"]) == replace(
        small, recipe=Recipe(epochs=24, learning_rate=0.01, margin=0.4)
    )


def test_limits_for_trying_out(table: RowFile, tmp_path: Path) -> None:
    def tried(epochs: int | None, weights: str | None) -> RunConfig:
        setting = Setting(
            name="shop", root=None, results=tmp_path, backbone="small", weights=weights,
            epochs=epochs,
        )  # fmt: skip
        shop = cast(Dataset, SimpleNamespace(name="shop"))
        runs = Runs(table, setting, shop, Ground("d", "w", "t", "e"))
        return runs.run(table.rows["mean"], 0).config

    small = tried(2, "w.safetensors").recipe
    assert (small.epochs, small.freeze) == (2, "all")
    assert tried(99, None).recipe.epochs == tried(None, None).recipe.epochs == 5


def test_rows_are_chosen_by_name_in_the_order_of_the_file(table: RowFile) -> None:
    assert [row.name for row in table.chosen(None)] == ["floor", "plain", "mean"]
    assert [row.name for row in table.chosen("mean, floor")] == ["floor", "mean"]
    with pytest.raises(UsageError, match="unknown row 'avg'; there are floor, plain, mean"):
        table.chosen("mean,avg")
    assert chosen_names("b, a", ("a", "b", "c")) == ["a", "b"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('recipes = ["quick"]', 'recipes = ["slow"]', "no recipe 'slow'; there are quick"),
        ('title = "GMP"', 'tittle = "GAP"', "unknown field `tittle`"),
        ("[base.model]", "[base.modell]", "Invalid enum value 'modell'"),
        ('reference = "plain"', 'reference = "plane"', "'plane' is none of its rows"),
        ("mean = { epochs = 5 }", "meen = { epochs = 5 }", "'meen' is none of its rows"),
        ("[rows]", "[rows", "cannot read the rows"),
        ('title = "GMP", variant', "recipe = 3, variant", "Expected `object`, got `int`"),
        ('reference = "plain"', "", "missing required field `reference`"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "rows.toml"
    assert before in TEXT
    path.write_text(TEXT.replace(before, after))
    with pytest.raises(UsageError, match=message):
        read_row_file(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("margin = 0.4", "marginn = 0.4", "row 'plain': unknown option 'marginn'"),
        ("dim = 64", 'dim = "64"', "row 'mean': dim = '64': Expected `int`, got `str`"),
        ('variant = "gmp"', 'variant = "gap"', "unknown model variant 'gap'"),
    ],
)
def test_wrong_options_name_their_row(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "rows.toml"
    path.write_text(TEXT.replace(before, after))
    table = read_row_file(path)
    with pytest.raises(UsageError, match=message):
        [config(table, name) for name in table.rows]


@pytest.mark.parametrize("path", [MAP, ABLATIONS, TABLE_2], ids=lambda path: path.stem)
@pytest.mark.parametrize("weights", [None, '/some "odd"\\path/w.safetensors'])
def test_every_row_of_the_project_survives_its_config_file(
    path: Path, weights: str | None, tmp_path: Path
) -> None:
    table = read_row_file(path)
    for row in table.chosen(None):
        made = table.config(row, "shop-resnet18", "resnet18", weights, 7)
        file = tmp_path / "config.toml"
        file.write_text(config_toml(made))
        assert read_config(file) == made, row.name


def test_the_rows_of_the_project_are_those_that_the_tables_promise() -> None:
    maps, ablations = read_row_file(MAP), read_row_file(ABLATIONS)
    rivals = ["triplet", "csn", "asen", "asenet-v2", "asenpp", "rpf", "agman", "cca"]
    assert list(maps.rows) == [
        "floor", *rivals, *(f"{name}-ours" for name in rivals), "asen-ours-stages",
        "asen-ours-readout", "m2fashion-paper", "m2fashion",
    ]  # fmt: skip
    assert list(ablations.rows) == [
        "m2fashion", "without-asa", "without-aca", "without-nuance", "without-attribute-nuance",
        "without-garment-nuance", "without-lower-stages", "without-value-conditions",
        "without-readout", "gmp", "without-triplets", "paper",
    ]  # fmt: skip
    assert list(own_recipes(maps).rows) == ["floor", *rivals, "m2fashion-paper", "m2fashion"]
    default = Recipe()
    for name in rivals:
        own, ours = config(maps, name), config(maps, f"{name}-ours")
        assert own.model == ours.model
        assert own.model.architecture == name
        assert not own.model.lower_stages  # our addition
        assert (own.recipe.sampling, own.recipe.value_weight) == ("triplets", 0)
        unlike = {
            option
            for option, value in ours.recipe.to_json().items()
            if value != default.to_json()[option]
        }
        assert unlike == {
            "value_conditions", "attribute_weight", "category_weight", "freeze",
        }  # fmt: skip
    ours, stages = config(maps, "asen-ours"), config(maps, "asen-ours-stages")
    assert stages == replace(ours, model=replace(ours.model, lower_stages=True))
    readout = config(maps, "asen-ours-readout")
    assert readout == replace(stages, model=replace(stages.model, readout="values"))
    assert config(maps, "m2fashion").recipe == replace(default, freeze="none")
    full = config(ablations, "m2fashion").model
    assert config(maps, "m2fashion").model == full
    assert (full.readout, full.lower_stages) == ("values", True)
    assert config(ablations, "without-readout").model == replace(full, readout="none")
    assert config(ablations, "without-lower-stages").model == replace(full, lower_stages=False)
    plain = config(ablations, "without-nuance").model
    assert plain == replace(full, nuance=0, garment_nuance=0)
    parts = ("without-attribute-nuance", "without-garment-nuance")
    assert [config(ablations, name).model for name in parts] == [
        replace(full, nuance=0), replace(full, garment_nuance=0),
    ]  # fmt: skip
    assert config(ablations, "without-value-conditions").recipe.value_conditions == 0
    literal = config(maps, "m2fashion-paper").model
    assert (literal.readout, literal.lower_stages) == ("none", False)


def test_tables_share_the_runs_that_they_have_in_common() -> None:
    maps, ablations = read_row_file(MAP), read_row_file(ABLATIONS)
    second = read_row_file(TABLE_2)
    shared = (
        ((maps, "m2fashion"), (ablations, "m2fashion")),
        ((maps, "m2fashion-paper"), (ablations, "paper")),
        ((maps, "m2fashion"), (second, "both")),
        ((maps, "m2fashion"), (second, "gap")),
        ((ablations, "gmp"), (second, "gmp")),
    )
    for group in {"none-resnet18", *maps.tuned, *ablations.tuned, *second.tuned}:
        for pair in shared:
            made = [f.config(f.rows[name], group, "resnet18", None, 0) for f, name in pair]
            assert made[0] == made[1]
