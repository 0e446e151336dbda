"""The rows of a table as a TOML file: each row is one line of overrides over a shared base.

title = "..."                      order = [row names, worst first]      reference = "row"
[base.model] [base.recipe] [base.preprocessing]    what all rows share
[recipes]                          named sets of recipe options
[rows]                             name = { title, variant, recipes, model, recipe, floor }
[tuned.DATASET-BACKBONE]           name (or "*") = recipe options, chosen on `valid`
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.errors import UsageError
from training.models.config import ModelConfig, variant
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.run import RunConfig
from training.validated import validated

Options = dict[str, Any]

EVERY_ROW = "*"
"""In `[tuned.X]`: options of all rows, before a row's own."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        name: unique in its table.
        title: what the rendered table calls it.
        variant: named model variant, see `training.models.config.VARIANTS`.
        model: further model options.
        recipe: recipe options, those of its named recipes merged in.
        floor: the frozen backbone's pooled features instead of a trained model.
    """

    name: str
    title: str
    variant: str
    model: Options
    recipe: Options
    floor: bool


@dataclass(frozen=True)
class RowFile:
    """A table's rows as read.

    Args:
        title: of the table.
        order: rows whose All MAP is expected to rise in this order; may be empty.
        reference: the row that the others are subtracted from.
        base: tables `model`, `recipe` and `preprocessing` that all rows share.
        rows: by name, in the order of the file.
        tuned: `DATASET-BACKBONE` -> row name or `*` -> recipe options.
    """

    title: str
    order: tuple[str, ...]
    reference: str
    base: dict[str, Options]
    rows: dict[str, Row]
    tuned: dict[str, dict[str, Options]]

    def chosen(self, names: str | None) -> list[Row]:
        """The rows named in `a,b`, in the file's order; all of them for None.

        Raises:
            UsageError: there is no such row.
        """
        if names is None:
            return list(self.rows.values())
        wanted = [part.strip() for part in names.split(",")]
        for name in wanted:
            if name not in self.rows:
                raise UsageError(f"unknown row {name!r}; there are {', '.join(self.rows)}")
        return [row for row in self.rows.values() if row.name in wanted]


def read_row_file(path: Path) -> RowFile:
    """Read and check a table's rows; a wrong model or recipe option shows in `row_config`.

    Raises:
        UsageError: a missing or malformed file, an unknown field, or a name that is no row.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the rows in {path}: {error}") from error
    try:
        return _row_file(data, path)
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"{path}: a table stands where a value belongs or the reverse: {error}"
        ) from error


def row_config(
    table: RowFile,
    row: Row,
    dataset: str,
    backbone: str,
    weights: str | None,
    seed: int,
    epochs: int | None = None,
    image_size: int | None = None,
) -> RunConfig:
    """All options of one run: base, then variant, named recipes, the row's own, tuned values.

    Args:
        table: the row's table.
        row: the row.
        dataset: name of the dataset, for the tuned values.
        backbone: name of the backbone, likewise.
        weights: of the backbone, kept frozen unless the row says otherwise; None trains it from
            scratch.
        seed: of the run.
        epochs: at most this many, to try things out.
        image_size: side of the pictures in pixels instead of the base's.

    Raises:
        UsageError: an unknown option or variant.
    """
    where = f"row {row.name!r}"
    tuned = table.tuned.get(f"{dataset}-{backbone}", {})
    recipe: Options = {"freeze_backbone": weights is not None}
    for options in (
        table.base.get("recipe", {}),
        row.recipe,
        tuned.get(EVERY_ROW, {}),
        tuned.get(row.name, {}),
    ):
        recipe |= options
    if epochs is not None:
        recipe["epochs"] = min(epochs, recipe.get("epochs", Recipe().epochs))
    base = validated(
        ModelConfig, table.base.get("model", {}) | {"backbone": backbone}, f"{where}, base"
    )
    prepared = table.base.get("preprocessing", {})
    if image_size is not None:
        prepared = prepared | {"size": image_size}
    return RunConfig(
        _model(row, base),
        validated(Recipe, recipe, where),
        validated(Preprocessing, prepared, where),
        weights,
        seed,
    )


def with_row(config: RunConfig, row: Row) -> RunConfig:
    """Another config with what a row changes: its variant and its own options.

    Raises:
        UsageError: an unknown option or variant.
    """
    recipe = config.recipe.to_json() | row.recipe
    return replace(
        config,
        model=_model(row, config.model),
        recipe=validated(Recipe, recipe, f"row {row.name!r}"),
    )


def _model(row: Row, base: ModelConfig) -> ModelConfig:
    options = variant(row.variant, base).to_json() | row.model
    return validated(ModelConfig, options, f"row {row.name!r}")


def _row_file(data: Options, path: Path) -> RowFile:
    _check(data, {"title", "order", "reference", "base", "recipes", "rows", "tuned"}, str(path))
    base, recipes, tuned = (data.get(name, {}) for name in ("base", "recipes", "tuned"))
    _check(base, {"model", "recipe", "preprocessing"}, f"{path} [base]")
    rows = {
        name: _row(name, options, recipes, f"{path} row {name!r}")
        for name, options in data.get("rows", {}).items()
    }
    order, reference = tuple(data.get("order", [])), data.get("reference", "")
    named = [name for group in tuned.values() for name in group if name != EVERY_ROW]
    for name in (*order, reference, *named):
        if name not in rows:
            raise UsageError(f"{path}: {name!r} is none of its rows {', '.join(rows)}")
    return RowFile(data.get("title", path.stem), order, reference, base, rows, tuned)


def _row(name: str, options: Options, recipes: dict[str, Options], where: str) -> Row:
    _check(options, {"title", "variant", "recipes", "model", "recipe", "floor"}, where)
    recipe: Options = {}
    for named in options.get("recipes", []):
        if named not in recipes:
            raise UsageError(f"{where}: no recipe {named!r}; there are {', '.join(recipes)}")
        recipe |= recipes[named]
    return Row(
        name,
        options.get("title", name),
        options.get("variant", "m2fashion"),
        options.get("model", {}),
        recipe | options.get("recipe", {}),
        options.get("floor", False),
    )


def _check(data: Options, known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise UsageError(
            f"{where}: unknown field {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
