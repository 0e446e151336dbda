"""A run's options as the TOML file that `retrieve train --config` reads."""

from __future__ import annotations

import json
from typing import Any

from training.run import RunConfig


def config_toml(config: RunConfig) -> str:
    """Every option of the run, so that `read_config` gives back an equal `RunConfig`."""
    lines = [f"seed = {config.seed}"]
    if config.weights is not None:
        lines.append(f"weights = {_value(config.weights)}")
    for name, table in config_tables(config).items():
        lines += ["", f"[{name}]"]
        lines += [f"{option} = {_value(value)}" for option, value in table.items()]
    return "\n".join(lines) + "\n"


def config_tables(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The options by table: model, recipe, preprocessing; without weights and seed."""
    return {
        "model": config.model.to_json(),
        "recipe": config.recipe.to_json(),
        "preprocessing": config.preprocessing.to_json(),
    }


def _value(value: Any) -> str:
    # JSON's numbers, strings, booleans and lists of them are TOML as well.
    return json.dumps(list(value) if isinstance(value, tuple) else value)
