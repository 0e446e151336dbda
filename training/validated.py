"""JSON and TOML that is read back, and options that are made in code: one validator of all of it.

Options are frozen dataclasses whose fields say what they may be (`Annotated[int, Meta(ge=1)]`).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from training.errors import DataError, RetrieveError, UsageError

T = TypeVar("T")

# Bounds that no option reaches keep infinity out; NaN passes no bound.
Positive = Annotated[float, Meta(gt=0, le=1e300)]
Weight = Annotated[float, Meta(ge=0, le=1e300)]
Share = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
FromZero = Annotated[int, Meta(ge=0, le=10**9)]


def validated(kind: type[T], data: Any, where: str, error: type[RetrieveError] = UsageError) -> T:
    """Plain values as an object of a dataclass, its dataclasses within included.

    Raises `error`, which names `where`, the field, its value and what it may be: a field without a
    default must be there, an unknown name must not.
    """
    try:
        _check_names(kind, data)
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RetrieveError) as problem:
        raise error(f"{where}: {_told(problem, data)}") from problem


def check_fields(options: object) -> None:
    """Check an object made in code, from its `__post_init__`; raises UsageError as `validated`."""
    kind: Any = type(options)
    for name, hint in _hints(kind).items():
        value = getattr(options, name)
        if not is_dataclass(value):
            try:
                msgspec.convert(value, hint)
            except msgspec.ValidationError as problem:
                raise UsageError(f"{name} = {value!r}: {problem}") from problem


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check_names(kind: Any, data: Any) -> None:
    if not isinstance(kind, type) or not is_dataclass(kind) or not isinstance(data, Mapping):
        return
    hints = _hints(kind)
    for name, value in data.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints) or list(hints)
            raise UsageError(f"unknown option {name!r}; there are {', '.join(near)}")
        choices = get_args(hints[name])
        if get_origin(hints[name]) is Literal and value not in choices:
            raise UsageError(f"{name} = {value!r} is none of {', '.join(map(str, choices))}")
        _check_names(hints[name], value)


def _told(problem: Exception, data: Any) -> str:
    """`recipe.epochs = 0: Expected int >= 1`."""
    reason, _, path = str(problem).partition(" - at `$.")
    names = path.rstrip("`").split(".")
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return f"{'.'.join(names)} = {data!r}: {reason}" if path else reason
