"""What commands share: options, one frozen dataclass a command, filled by click once; names,
indexes and paths as they are given.

@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    top_k: Annotated[int, COUNT, "Hits at most."] = 10
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

import click

from training.datasets import ADAPTERS
from training.errors import UsageError
from training.files import leaves_root

Options = TypeVar("Options")

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
SHARE = click.FloatRange(0, 1)
SEED = click.IntRange(0, 2**32 - 1)

DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
ITEMS = "Column of a catalogue that tells which pictures show one product [default: item]."
_DATASET = click.option(
    "--dataset",
    "name",
    required=True,
    metavar="NAME|FOLDER",
    help=f"One of {', '.join(ADAPTERS)}, or a folder.",
)
_ROOT = click.option(
    "--root",
    type=PATH,
    help="The dataset's folder [default: $RETRIEVE_DATA/NAME, then data/NAME].",
)


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """`--dataset` and `--root`, which most commands begin with."""

    name: Annotated[str, _DATASET]
    root: Annotated[Path | None, _ROOT]


def filled(options: type[Options]) -> Callable[[Callable[[Options], Any]], Callable[..., Any]]:
    """Give a command click's options of a dataclass' fields, handed over as one object.

    Each field is `Annotated[type, click type or help or both]`, and has its option's name, type and
    default; or is annotated with a click option or argument.
    """

    def decorate(command: Callable[[Options], Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**given: Any) -> Any:
            return command(options(**given))

        hints = get_type_hints(options, include_extras=True)
        for own in reversed(fields(options)):  # type: ignore[arg-type]
            _parameter(own, hints[own.name])(call)
        return call

    return decorate


def _parameter(own: Field[Any], hint: Any) -> Callable[[Any], Any]:
    """The click option of a field."""
    kinds = [a for a in get_args(hint.__origin__) or (hint.__origin__,) if a is not type(None)]
    kind: Any = PATH if Path in kinds else kinds[0]
    name, help = "--" + own.name.replace("_", "-"), None
    for note in hint.__metadata__:
        if isinstance(note, click.ParamType):
            kind = note
        elif isinstance(note, str):
            help = note
        else:
            return cast(Callable[[Any], Any], note)
    if kind is bool:
        names = name if own.default is False else f"{name}/--no-{name[2:]}"
        return click.option(names, is_flag=True, default=own.default, help=help)
    several = own.default == ()
    return click.option(
        name,
        type=str if several else kind,
        multiple=several,
        default=None if own.default is MISSING else own.default,
        required=own.default is MISSING,
        show_default=own.default not in (MISSING, None, ()),
        help=help,
    )


def split_names(option: str, given: Sequence[str]) -> list[str]:
    """Names of a comma-separated option that may be given more than once; none may be empty."""
    names = [part.strip() for text in given for part in text.split(",")]
    if not all(names):
        raise UsageError(
            f"{option} {','.join(given)!r} holds an empty name; separate names by single commas"
        )
    return names


def only_index(option: str) -> Path:
    """The one index in indexes/; UsageError, which tells the `option` that names another, if there
    is none, or more than one."""
    # By the copy too: a lost manifest does not hide an index.
    found = sorted({path.parent for path in Path("indexes").glob("*/manifest*.json")})
    none = (
        "no index in indexes/; build one with `retrieve build-index --dataset D`, "
        f"or name one with {option}"
    )
    return only_one(found, "indexes in indexes/", option, none)


def only_one(found: list[Path], what: str, option: str, none: str) -> Path:
    """The one path that was found; else UsageError: `none`, or which there are of `what`."""
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(map(str, found))
        raise UsageError(f"{len(found)} {what}; choose with {option}: {choices}")
    raise UsageError(none)


def paths_in(root: Path, given: str) -> list[str]:
    """What a path, absolute or relative to the working folder or to a gallery's folder, may mean
    relative to the latter (`root`, absolute), likeliest first; none if outside."""
    out = []
    here = Path(os.path.abspath(given)) if "\0" not in given else Path(given)
    for absolute in (here, here.parent.resolve() / here.name):  # the folder may be a link
        if absolute.is_relative_to(root) and absolute != root:
            out.append(absolute.relative_to(root).as_posix())
    if not Path(given).is_absolute():
        out.append(given)
    return [path for path in dict.fromkeys(out) if not leaves_root(path)]
