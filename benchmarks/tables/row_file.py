"""The rows of a table as a TOML file: each row is one line of overrides over a shared base.

title = "..."                      reference = "row"
[base.model] [base.recipe] [base.preprocessing]    what all rows share
[recipes]                          named sets of recipe options
[rows]                             name = { title, variant, recipes, model, recipe, floor }
[tuned.DATASET-BACKBONE]           name (or "*") = recipe options and `resize` of the
                                   preprocessing, chosen on `valid`
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.models.backbones import pictures_of
from training.models.config import ModelConfig, variant
from training.recipe import Recipe
from training.run import RunConfig
from training.validated import validated

Options = dict[str, Any]

ABLATIONS = Path(__file__).with_name("ablations.toml")
MAP = Path(__file__).with_name("map.toml")
TABLE_1 = Path(__file__).with_name("table1.toml")
TABLE_2 = Path(__file__).with_name("table2.toml")

WHOLE = "m2fashion"
"""The row of M2Fashion, which lacks nothing, in both files."""

EVERY_ROW = "*"
"""In `[tuned.X]`: options of all rows, before a row's own."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row: a variant (see `training.models.config.VARIANTS`), named recipes, further options.

    A floor is the frozen backbone's pooled features instead of a trained model.
    """

    name: str = ""
    title: str = ""
    variant: str = "m2fashion"
    recipes: tuple[str, ...] = ()
    model: Options = {}
    recipe: Options = {}
    floor: bool = False


class RowFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table's rows by name, and the one, `reference`, that the others are subtracted from."""

    reference: str
    rows: dict[str, Row]
    title: str = ""
    base: dict[Literal["model", "recipe", "preprocessing"], Options] = {}
    recipes: dict[str, Options] = {}
    tuned: dict[str, dict[str, Options]] = {}

    def chosen(self, names: str | None) -> list[Row]:
        """The rows named in `a,b`, in the file's order, all for None; raises UsageError."""
        return [self.rows[name] for name in chosen_names(names, self.rows)]

    def config(
        self, row: Row, group: str, backbone: str, weights: str | None, seed: int
    ) -> RunConfig:
        """All options of one run: base, then variant, named recipes, the row's own, tuned values.

        A backbone with weights is frozen unless the row says otherwise; one of timm is shown
        pictures as its records tell, unless the base says otherwise. `group` is
        `DATASET-BACKBONE`, for the tuned values. Raises UsageError: unknown option or variant.
        """
        tuned = self.tuned.get(group, {})
        recipe: Options = {"freeze": "none" if weights is None else "all"}
        recipe |= self.base.get("recipe", {}) | row.recipe
        recipe |= tuned.get(EVERY_ROW, {}) | tuned.get(row.name, {})
        where = f"row {row.name!r}"
        model = self.base.get("model", {}) | {"backbone": backbone}
        pictures = Preprocessing().to_json() | pictures_of(backbone, weights)
        pictures |= self.base.get("preprocessing", {})
        pictures["resize"] = recipe.pop("resize", pictures["resize"])
        return RunConfig(
            _model(row, validated(ModelConfig, model, where)),
            validated(Recipe, recipe, where),
            Preprocessing.from_json(pictures),
            weights,
            seed,
        )


def read_row_file(path: Path) -> RowFile:
    """Read and check a table's rows; a wrong model or recipe option shows in `RowFile.config`.

    Raises UsageError: a missing or malformed file, an unknown field, or a name that is no row.
    """
    try:
        table = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), RowFile)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"cannot read the rows in {path}: {error}") from error
    for name in (table.reference, *(name for group in table.tuned.values() for name in group)):
        if name not in table.rows and name != EVERY_ROW:
            raise UsageError(f"{path}: {name!r} is none of its rows {', '.join(table.rows)}")
    for name, row in table.rows.items():
        recipe: Options = {}
        for named in row.recipes:
            if named not in table.recipes:
                known = ", ".join(table.recipes)
                raise UsageError(f"{path} row {name!r}: no recipe {named!r}; there are {known}")
            recipe |= table.recipes[named]
        own = {"name": name, "title": row.title or name, "recipe": recipe | row.recipe}
        table.rows[name] = msgspec.structs.replace(row, **own)
    return table


def with_row(config: RunConfig, row: Row) -> RunConfig:
    """Another config with what a row changes; raises UsageError: unknown option or variant."""
    recipe = validated(Recipe, config.recipe.to_json() | row.recipe, f"row {row.name!r}")
    return replace(config, model=_model(row, config.model), recipe=recipe)


def chosen_names(names: str | None, known: Any) -> list[str]:
    """The names of `a,b` in the order in which they are known, all for None; raises UsageError."""
    wanted = list(known) if names is None else [part.strip() for part in names.split(",")]
    for name in wanted:
        if name not in known:
            raise UsageError(f"unknown row {name!r}; there are {', '.join(known)}")
    return [name for name in known if name in wanted]


def config_toml(config: RunConfig) -> str:
    """A TOML file of every option, from which `read_config` gives back an equal `RunConfig`."""
    lines = [f"seed = {config.seed}"]
    if config.weights is not None:
        lines.append(f"weights = {json.dumps(config.weights)}")
    for name, options in config_tables(config).items():
        # JSON's numbers, strings, booleans and lists of them are TOML as well.
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in options.items())]
    return "\n".join(lines) + "\n"


def config_tables(config: RunConfig) -> dict[str, Options]:
    """The options by table; without weights and seed."""
    return {
        "model": config.model.to_json(),
        "recipe": config.recipe.to_json(),
        "preprocessing": config.preprocessing.to_json(),
    }


def _model(row: Row, base: ModelConfig) -> ModelConfig:
    options = variant(row.variant, base).to_json() | row.model
    return validated(ModelConfig, options, f"row {row.name!r}")
