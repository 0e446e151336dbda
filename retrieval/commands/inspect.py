"""`retrieve inspect`: counts, values, splits, missing and broken images, doubtful labels of a
dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from retrieval.console import Bars, counting, plain, print_json, print_table, stdout
from retrieval.options import DEVICE, JSON, DatasetOptions, filled
from training.datasets.dataset import SPLITS, ColumnRole, Dataset, straddling_notes
from training.errors import DataError, UsageError
from training.schema import NOT_APPLICABLE

VALUES_SHOWN = 12
PATHS_SHOWN = 5
SUSPICIOUS_SHOWN = 20
MOST_DRAWN = 60  # suspicious labels on a sheet
SIDE = 224  # pixels; pictures are decoded as for a model of this side, as most are


@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    """What `retrieve inspect` is told."""

    images: Annotated[
        bool, click.option("--images/--no-images", help="Decode every image; find broken ones.")
    ]
    suspicious: Annotated[
        bool, "List the known labels that a model contradicts, least likely first."
    ] = False
    checkpoint: Annotated[Path | None, "That model, for --suspicious."] = None
    sheet: Annotated[Path | None, "Draw the first suspicious ones, such as doubtful.png."] = None
    device: Annotated[str, DEVICE]
    as_json: Annotated[bool, JSON]


@dataclass(frozen=True)
class ValueCount:
    """One value and the number of images that have it, by split."""

    name: str
    images: dict[str, int]


@dataclass(frozen=True)
class AttributeCount:
    """One attribute, whether an image can have several of its values, the images labelled in it,
    by split, and its values in the schema's order, then `not applicable` if it is optional."""

    name: str
    multi: bool
    labelled: dict[str, int]
    values: list[ValueCount]


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be read, and why; the reason does not repeat the path."""

    path: str
    reason: str


@dataclass(frozen=True)
class SuspiciousLabel:
    """What is known of an attribute of an image, what a model takes it for, and how well the label
    is borne out, 0..1."""

    path: str
    attribute: str
    known: list[str]
    predicted: list[str]
    support: float


@dataclass(frozen=True)
class Inspection:
    """All that `retrieve inspect` tells.

    Args:
        images: by split: train, valid, test, others by name, `unassigned` (in none), `all`.
        values, categories, items: how many; items None if unknown.
        payload: columns that are no attributes; an index keeps and filters by them.
        protocols: queries and candidates of published lists, by split.
        notes: remarks of the adapter, and on what several splits share.
        columns: what each column of a catalogue was taken for, and why.
        missing: paths of images that are not there.
        broken: images that cannot be read; None if they were not opened.
        suspicious: labels that a model contradicts, the least likely first; None if none was asked.
    """

    dataset: str
    root: str
    images: dict[str, int]
    values: int
    attributes: list[AttributeCount]
    categories: int
    items: int | None
    boxes: bool
    landmarks: bool
    payload: list[str]
    protocols: dict[str, dict[str, int]]
    notes: list[str]
    columns: list[ColumnRole]
    missing: list[str]
    broken: list[BrokenImage] | None = None
    suspicious: list[SuspiciousLabel] | None = None


@click.command("inspect")
@filled(Options)
def command(options: Options) -> None:
    """Print counts, values, splits, missing and broken files of a dataset.

    \b
    retrieve inspect --dataset shop --suspicious --checkpoint runs/shop --sheet doubtful.png
    """
    if options.suspicious != (options.checkpoint is not None):
        raise UsageError("--suspicious and --checkpoint RUN belong together")
    if options.sheet is not None:
        from retrieval.sheet import check_sheet_name

        if not options.suspicious:
            raise UsageError("--sheet draws suspicious labels: add --suspicious --checkpoint RUN")
        check_sheet_name(options.sheet, None, "sheet")
    dataset = options.load(quiet=True)
    found = inspect_dataset(dataset)
    if options.images:
        with counting("decoding", len(set(dataset.paths))) as tick:
            found = replace(found, broken=broken_images(dataset, set(found.missing), tick))
    if options.checkpoint is not None:
        contradicted = suspicious_labels(dataset, options.checkpoint, options.device)
        found = replace(found, suspicious=contradicted)
        if options.sheet is not None:
            _draw(options.sheet, dataset.root, contradicted)
    if options.as_json:
        print_json(asdict(found))
    else:
        _print(found)


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Count what the dataset holds and look whether its images are there; opens none of them."""
    return Inspection(
        dataset=dataset.name,
        root=str(dataset.root),
        images=_by_split(dataset, np.ones((len(dataset), 1), dtype=bool))[0],
        values=dataset.schema.size,
        attributes=count_attributes(dataset),
        categories=len(dataset.category_names),
        items=None if dataset.items is None else len(np.unique(dataset.items)),
        boxes=dataset.boxes is not None,
        landmarks=dataset.landmarks is not None,
        payload=list(dataset.payload),
        protocols={
            split: {"queries": len(p.queries.rows), "candidates": len(p.candidates.rows)}
            for split, p in dataset.protocols.items()
        },
        notes=[*dataset.notes, *straddling_notes(dataset)],
        columns=list(dataset.columns),
        # os.path.isfile is False for a name that no file can have; Path.is_file raises.
        missing=[p for p in dict.fromkeys(dataset.paths) if not os.path.isfile(dataset.root / p)],
    )


def count_attributes(dataset: Dataset) -> list[AttributeCount]:
    """Images that have each value, and that are labelled in each attribute, by split."""
    counts: list[AttributeCount] = []
    for number, attribute in enumerate(dataset.schema.attributes):
        states = dataset.labels[:, dataset.schema.slice_of(number)]
        known, names, found = attribute.labelled(states), attribute.values, states == 1
        if attribute.optional:
            names = (*names, NOT_APPLICABLE)
            found = np.column_stack([found, attribute.inapplicable(states)])
        values = list(map(ValueCount, names, _by_split(dataset, found)))
        labelled = _by_split(dataset, known[:, None])[0]
        counts.append(AttributeCount(attribute.name, attribute.multi, labelled, values))
    return counts


def broken_images(
    dataset: Dataset, skip: set[str], tick: Callable[[int], None]
) -> list[BrokenImage]:
    """Decode every image but those of `skip`, which are missing, and tell which cannot be; `tick`
    is called with 1 after each."""
    from training.images.read import open_picture, shown_path

    broken: list[BrokenImage] = []
    for path in dict.fromkeys(dataset.paths):
        file = dataset.root / path
        try:
            if path not in skip:
                open_picture(file, draft=SIDE)
        except DataError as error:
            broken.append(BrokenImage(path, str(error).removeprefix(f"{shown_path(file)}: ")))
        except MemoryError:
            broken.append(BrokenImage(path, "out of memory while decoding"))
        tick(1)
    return broken


def suspicious_labels(dataset: Dataset, run: Path, device: str) -> list[SuspiciousLabel]:
    """The known labels that the model of a run contradicts, the least likely first; raises as
    `predict` does."""
    from indexer.store.gallery import align_labels
    from retrieval.tags import Predicted, predict, support_of, thresholds
    from training.checkpoint import load_checkpoint
    from training.device import choose_device

    chosen = choose_device(device).device
    loaded = load_checkpoint(run, chosen)
    schema = loaded.schema
    labels = align_labels(dataset.labels, dataset.schema, schema)[0]
    rows = np.flatnonzero(schema.labelled(labels).any(axis=1))
    if not len(rows):
        raise DataError(f"{dataset.name} has no label that the model knows; nothing to doubt")
    paths = [dataset.paths[row] for row in rows.tolist()]
    with Bars() as bars:
        chances = np.concatenate(list(predict(loaded, chosen, dataset.root, paths, bars)))
    seen = ~np.isnan(chances).any(axis=1)
    labels, chances, rows = labels[rows][seen], chances[seen], rows[seen]
    support = support_of(schema, labels, chances)
    predicted = Predicted.of(schema, chances, thresholds(loaded.training, schema))

    def names(has: NDArray[np.bool_], attribute: int) -> list[str]:
        values = schema.attributes[attribute].values
        own = np.flatnonzero(has[schema.slice_of(attribute)]).tolist()
        return [values[n] for n in own] or [NOT_APPLICABLE]

    out = []
    for place in np.argsort(support, axis=None, kind="stable").tolist():  # NaN last
        row, number = divmod(place, len(schema.attributes))
        if np.isnan(support[row, number]):
            break
        known, said = (names(own, number) for own in (labels[row] == 1, predicted.values[row]))
        if known != said:
            who = dataset.paths[rows[row]], schema.attributes[number].name
            out.append(SuspiciousLabel(*who, known, said, round(float(support[row, number]), 4)))
    return out


def _draw(sheet: Path, root: Path, labels: Sequence[SuspiciousLabel]) -> None:
    """The pictures of the first labels, with what is known and what the model says."""
    from retrieval.sheet import GREEN, INK, RED, save_pictures

    pictures = []
    for label in labels[:MOST_DRAWN]:
        known = f"{label.attribute}: {'|'.join(label.known)} {label.support:.0%}"
        lines = [(label.path, INK), (known, RED), (f"model: {'|'.join(label.predicted)}", GREEN)]
        pictures.append((root / label.path, lines))
    save_pictures(sheet, "labels that the model contradicts", pictures)


def _by_split(dataset: Dataset, present: NDArray[np.bool_]) -> list[dict[str, int]]:
    """Column sums of `present` [N, M] by split, M dicts."""
    others = sorted({str(split) for split in dataset.splits} - {"", *SPLITS})
    splits = {name: name for name in (*SPLITS, *others)} | {"unassigned": ""}
    sums = [present[dataset.splits == split].sum(axis=0) for split in splits.values()]
    table = np.stack([*sums, present.sum(axis=0)], axis=1)
    return [dict(zip((*splits, "all"), row, strict=True)) for row in table.tolist()]


def _print(found: Inspection) -> None:
    stdout.print(f"[bold]{plain(found.dataset)}[/bold]  {plain(found.root)}")
    columns = [c for c, count in found.images.items() if count or c == "all"]

    def table(title: str, second: str) -> Table:
        out = Table(title=title, title_justify="left")
        out.add_column("attribute")
        out.add_column(second)
        for column in columns:
            out.add_column(column, justify="right")
        return out

    def row(first: str, second: str, images: dict[str, int]) -> list[str]:
        return [first, second, *(f"{images[c]:,}" for c in columns)]

    overview = table("images and labels by split", "values")
    overview.add_row(*row("(images)", "", found.images), end_section=True)
    values = table("images that have a value", "value")
    for a in found.attributes:
        name = plain(a.name)
        first = f"{name} (multi)" if a.multi else name
        overview.add_row(*row(first, str(len(a.values)), a.labelled))
        ranked = sorted(a.values, key=lambda v: -v.images["all"])
        shown = ranked[:VALUES_SHOWN] if len(ranked) > VALUES_SHOWN + 1 else ranked
        for place, value in enumerate(shown):
            values.add_row(*row("" if place else name, plain(value.name), value.images))
        if len(shown) < len(ranked):
            values.add_row("", f"and {len(ranked) - len(shown)} more (all with --json)")
        values.add_section()
    if found.columns:
        columns_table = Table(title="columns", title_justify="left")
        for title in ("column", "taken for", "because"):
            columns_table.add_column(title)
        for c in found.columns:
            columns_table.add_row(plain(c.name), c.role, plain(c.reason))
        print_table(columns_table)
    print_table(overview)
    print_table(values)
    for split, lists in found.protocols.items():
        sizes = f"{lists['queries']:,} queries, {lists['candidates']:,} candidates"
        stdout.print(f"published lists, {split}: {sizes}")
    extras = {
        f"{found.categories} categories": found.categories,
        f"{found.items or 0:,} items": found.items is not None,
        "boxes": found.boxes,
        "landmarks": found.landmarks,
        f"columns {plain(', '.join(found.payload))}": found.payload,
    }
    if any(extras.values()):
        stdout.print("also: " + ", ".join(text for text, there in extras.items() if there))
    for note in found.notes:
        stdout.print(f"note: {plain(note)}")
    unusable = {"missing": found.missing}
    if found.broken is not None:
        unusable["broken"] = [f"{b.path}: {b.reason}" for b in found.broken]
    for what, lines in unusable.items():
        stdout.print(f"{what} images: {len(lines):,}")
        for line in lines[:PATHS_SHOWN]:
            stdout.print(f"  {plain(line)}")
        if len(lines) > PATHS_SHOWN:
            stdout.print(f"  and {len(lines) - PATHS_SHOWN:,} more (all with --json)")
    if found.suspicious is not None:
        doubted = Table(title="labels that the model contradicts", title_justify="left")
        for title in ("image", "attribute", "known", "model says"):
            doubted.add_column(title)
        doubted.add_column("support", justify="right")
        for label in found.suspicious[:SUSPICIOUS_SHOWN]:
            names = label.attribute, "|".join(label.known), "|".join(label.predicted)
            doubted.add_row(*map(plain, (label.path, *names)), f"{label.support:.0%}")
        print_table(doubted)
        more = len(found.suspicious) - SUSPICIOUS_SHOWN
        if more > 0:
            stdout.print(f"and {more:,} more (all with --json)")
