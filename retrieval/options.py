"""What commands share: options, one frozen dataclass a command, filled by click once; names,
indexes and paths as they are given.

@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    top_k: Annotated[int, COUNT, "Hits at most."] = 10
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args, get_type_hints

import click

from retrieval.console import say
from training.datasets import ADAPTERS, load_dataset
from training.errors import UsageError
from training.files import leaves_root

if TYPE_CHECKING:
    from training.datasets.dataset import Dataset
    from training.schema import Schema

Options = TypeVar("Options")
_Names = tuple[str, ...]

ImageColumn = Annotated[str | None, "Column of paths of pictures [default: image]."]
Separator = Annotated[str | None, "Between the cells of a table: one character, or tab."]
Encoding = Annotated[str | None, "Of a table's text, such as cp1252 [default: UTF-8]."]

DATABASE = re.compile("(postgres(ql)?|milvuss?)://")
"""How names of indexes begin that are no folders."""


class _Path(click.Path):
    """A path; UsageError for a database."""

    def convert(self, value: Any, *others: Any) -> Any:
        if DATABASE.match(str(value)):
            raise UsageError(
                f"{value} is a database, which is only asked; change the index that it was "
                "exported from, and export it again"
            )
        return super().convert(value, *others)


PATH = _Path(path_type=Path)
COUNT = click.IntRange(min=1)
SHARE = click.FloatRange(0, 1)
SEED = click.IntRange(0, 2**32 - 1)

DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
    """Which dataset, and what a catalogue's columns are where they are not to be guessed."""

    name: Annotated[str, _DATASET]
    root: Annotated[Path | None, _ROOT]
    attributes: Annotated[_Names, "Only these attributes, of a catalogue these columns: A,B."] = ()
    item_column: Annotated[
        str | None, "Column that tells which pictures show one product [default: item]."
    ] = None
    image_column: ImageColumn = None
    split_column: Annotated[str | None, "Column of splits [default: split]."] = None
    payload: Annotated[_Names, "Columns that are no attributes, but filtered by: A,B."] = ()
    text: Annotated[_Names, "Columns of text, no attributes: A,B."] = ()
    separator: Separator = None
    encoding: Encoding = None

    def load(self, schema: Schema | None = None, quiet: bool = False) -> Dataset:
        """The dataset, with the attributes of a model's schema; what was guessed is said on stderr,
        unless `quiet`. Raises DataError, UsageError."""
        from training.datasets.columns import Told

        listed = {
            name: split_names(f"--{name}", getattr(self, name))
            for name in ("attributes", "payload", "text")
        }
        told = Told(
            image=self.image_column,
            split=self.split_column,
            payload=tuple(listed["payload"]),
            text=tuple(listed["text"]),
            separator=self.separator,
            encoding=self.encoding,
        )
        chosen = listed["attributes"] or None
        dataset = load_dataset(self.name, self.root, chosen, self.item_column, told, schema)
        if not quiet:
            for line in _said(dataset):
                say(line)
        return dataset

    @property
    def words(self) -> list[str]:
        """The same options for another command."""
        words = ["--dataset", self.name]
        for own in fields(DatasetOptions):
            given = getattr(self, own.name)
            if own.name != "name" and given not in (None, ()):
                for value in given if isinstance(given, tuple) else (given,):
                    words += ["--" + own.name.replace("_", "-"), str(value)]
        return words


def _said(dataset: Dataset) -> list[str]:
    """What was guessed of a dataset: a line on its columns, if any is not plain, and the notes."""
    skipped = {c.note for c in dataset.columns}
    kept = [c.name for c in dataset.columns if c.role in ("payload", "text") and c.name]
    lines = [note for note in dataset.notes if note not in skipped]
    if kept:
        used = ", ".join(attribute.name for attribute in dataset.schema.attributes)
        lines.insert(
            0,
            f"attributes: {used}; kept beside them: {', '.join(kept)} (guessed; `retrieve inspect` "
            "tells why, --attributes and --payload set them)",
        )
    return lines


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


def split_names(
    option: str, given: Sequence[str], knows: Callable[[str], bool] = lambda name: False
) -> list[str]:
    """Names of a comma-separated option that may be given more than once; none may be empty.

    A comma belongs to a name after a backslash, and where a name that holds it is one that `knows`
    accepts, the longest first: `blue, white` may be one value, `blue,white` still be two.
    """
    names: list[str] = []
    for text in given:
        parts = re.split(r"(?<!\\),", text)
        while parts:
            most = len(parts)
            while most > 1 and not knows(",".join(parts[:most]).strip()):
                most -= 1
            names.append(",".join(parts[:most]).replace("\\,", ",").strip())
            del parts[:most]
    if not all(names):
        raise UsageError(
            f"{option} {','.join(given)!r} holds an empty name; separate names by single commas, "
            "and write a comma of a name as \\,"
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
