"""How much to label, and what to label next: figures against the number of labelled images.

    retrieve bench labels --dataset data/fashion-products --item-column name --weights FILE

Trains the row `m2fashion` of `benchmarks/tables/map.toml` on the training split with all labels
but those of so many images, drawn with the seed, made unknown; `valid` and `test` keep theirs. With
`--choices` the labels of `START` images are followed by those of as many more, by each way to
choose them. Runs are kept and resumed, and share the maps of the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Data, Result, bench_command, table
from benchmarks.tables.keys import data_hash, ground
from benchmarks.tables.measure import SPLIT, Run, Runs
from benchmarks.tables.options import Setting, Trained
from benchmarks.tables.row_file import MAP, WHOLE, chosen_names
from benchmarks.tables.summary import Column
from retrieval.commands.train import TrainingBars, validation_map
from retrieval.console import counting
from retrieval.evaluation.attribute_map import evaluate_attributes
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.scorer import DescriptorScorer
from retrieval.evaluation.tagging import evaluate_tags
from retrieval.options import split_names
from training.checkpoint import load_checkpoint
from training.datasets.dataset import Dataset
from training.datasets.labels import whole_number
from training.device import choose_device, keep_freed_memory
from training.errors import DataError, UsageError
from training.images.batches import Reading
from training.maps import bank_from_images
from training.run import run_training
from training.schema import Schema
from training.sources import validation_rows
from training.trainer import Setting as TrainSetting

START = 200
"""Labelled images before more of them are chosen, and how many are."""

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """What a model says of N pictures, some of which are labelled."""

    schema: Schema
    chances: Floats  # [N, K], calibrated
    nuance: Floats  # [N, numbers], unit vectors side by side
    known: NDArray[np.bool_]  # which are labelled [N]

    @property
    def points(self) -> Floats:
        """What a descriptor tells, [N, D]."""
        return np.hstack([self.chances, self.nuance])


def uncertainty(schema: Schema, chances: Floats) -> Floats:
    """Entropy of chances [N, K], 0..1 of the largest that there can be, in the mean over
    attributes (and over the values of a multi-valued one): [N]."""
    sure = np.clip(chances.astype(np.float64), 1e-12, 1)
    not_so = np.clip(1 - chances.astype(np.float64), 1e-12, 1)
    parts = []
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        entropy = -(sure[:, own] * np.log(sure[:, own]))
        if attribute.multi:
            entropy -= not_so[:, own] * np.log(not_so[:, own])
            parts.append(entropy.mean(axis=1) / math.log(2))
        else:
            parts.append(entropy.sum(axis=1) / math.log(max(2, len(attribute.values))))
    return np.asarray(np.mean(parts, axis=0), dtype=np.float32)


def least_sure(pool: Pool, count: int, seed: int) -> Numbers:
    """The most uncertain of what is not labelled, [count]; of equal ones the first."""
    unsure = np.where(pool.known, -1, uncertainty(pool.schema, pool.chances))
    return np.argsort(-unsure, kind="stable")[:count]


def farthest_first(pool: Pool, count: int, seed: int) -> Numbers:
    """One after another, [count], whose descriptor is farthest from the nearest that is labelled or
    chosen (k-center, Sener and Savarese 2018); of equal ones the first."""
    points = pool.points
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for place in np.flatnonzero(pool.known).tolist():
        nearest = np.minimum(nearest, _squares(points, place))
    out: list[int] = []
    for _ in range(count):
        out.append(int(np.where(pool.known, -1, nearest).argmax()))
        nearest = np.minimum(nearest, _squares(points, out[-1]))
        nearest[out[-1]] = -1
    return np.array(out, dtype=np.int64)


def unsure_and_varied(pool: Pool, count: int, seed: int) -> Numbers:
    """k-means++ over descriptors as long as they are uncertain, [count]: each is drawn by its
    squared distance from the nearest chosen one, so that uncertain ones are taken that are unlike
    each other (as BADGE, Ash et al. 2020, over gradients)."""
    rng, free = np.random.default_rng(seed), np.flatnonzero(~pool.known)
    points = (pool.points * uncertainty(pool.schema, pool.chances)[:, None])[free]
    weight = (points**2).sum(axis=1)
    out: list[int] = []
    for _ in range(count):
        weight[out[-1:]] = 0
        out.append(int(rng.choice(len(free), p=weight / weight.sum(dtype=np.float64))))
        weight = np.minimum(weight, _squares(points, out[-1]))
    return free[out]


def _squares(points: Floats, place: int) -> Floats:
    """Squared distance of each of some points [N, D] from one of them, [N]."""
    return np.asarray(((points - points[place]) ** 2).sum(axis=1))


WAYS: dict[str, Callable[[Pool, int, int], Numbers]] = {
    "unsure": least_sure,
    "spread": farthest_first,
    "varied": unsure_and_varied,
}
"""How to choose what is labelled next, beside `random`: from a pool so many, with a seed."""

RANDOM = "random"


def labelled_rows(dataset: Dataset) -> Numbers:
    """Rows of the training split that are labelled in any attribute, ascending."""
    labelled = (dataset.labels == 1).any(axis=1) & (dataset.splits == "train")
    return np.flatnonzero(labelled).astype(np.int64)


def knowing_only(dataset: Dataset, rows: Numbers) -> Dataset:
    """The dataset with nothing known of what images of its training split show but those of
    `rows`; all pictures stay, and the other splits as they are."""
    gone = np.setdiff1d(dataset.rows_of("train"), rows)
    labels, category = dataset.labels.copy(), dataset.category.copy()
    labels[gone], category[gone] = 0, -1
    return replace(dataset, labels=labels, category=category)


@dataclass(frozen=True)
class LabelRuns(Runs):
    """Runs on datasets of which less and less is known, all in one folder."""

    kind: ClassVar[str] = "labels"

    def trained_on(self, rows: Numbers, seed: int) -> tuple[LabelRuns, Run]:
        """A run that knows the labels of some rows of the training split alone, and the runs that
        it is one of."""
        known = knowing_only(self.dataset, rows)
        runs = replace(self, dataset=known, ground=ground(known, self.setting.weights))
        return runs, runs.run(self.table.rows[WHOLE], seed)

    def train(self, run: Run, resume: bool) -> Data:
        """In this process: no file says which labels are known."""
        keep_freed_memory()
        setting = self.setting
        device = choose_device(setting.device).device
        how = TrainSetting(device, setting.workers, resume, validation_map)
        images = len(self.dataset.rows_of("train")) + len(validation_rows(self.dataset))
        with TrainingBars(images * (1 + run.config.recipe.stored_copies)) as bars:
            report = run_training(self.dataset, run.config, self.folder(run), how, bars)
        return {
            "images": report.images,
            "best_epoch": report.best_epoch,
            "validation_map": report.best_validation,
            "seconds": round(sum(epoch.seconds for epoch in report.epochs), 1),
            "setup_seconds": None,
            "epochs": report.epochs,
        }

    def evaluate(self, run: Run) -> Data:
        """MAP, percent, and mean accuracy of tags, 0..1, on `valid` and on the test split."""
        loaded = load_checkpoint(self.folder(run), choose_device(self.setting.device).device)
        figures: Data = {}
        for split in ("valid", SPLIT):
            how = loaded.preprocessing, self.setting.workers, f"encoding {split}"
            found = encode_split(loaded.model, self.dataset, split, *how, self.setting.cache)
            part, own = found.dataset, DescriptorScorer.of(found.bank, self.dataset.schema)
            maps = evaluate_attributes(
                part, split, "type", own.embed, embed_queries=own.embed_queries
            )
            tags = evaluate_tags(part, found.bank.chances)
            accuracy = None if tags is None else tags.accuracy
            figures[split] = {"map": maps.all.map, "accuracy": accuracy}
        return figures

    def pool(self, run: Run, rows: Numbers, known: Numbers) -> tuple[Numbers, Pool]:
        """Those of some rows that can be read, and what a run's model says of them; `known` are
        labelled."""
        loaded = load_checkpoint(self.folder(run), choose_device(self.setting.device).device)
        wanted = np.union1d(self.dataset.rows_of("train"), validation_rows(self.dataset))
        with counting("encoding what may be labelled", len(wanted)) as bar:  # stored by `train`
            how = Reading(loaded.preprocessing, self.setting.workers, bar), self.setting.cache
            bank, failures = bank_from_images(loaded.model, self.dataset, wanted, *how)
        gone = {path for path, _ in failures}
        there = np.array([row for row in wanted.tolist() if self.dataset.paths[row] not in gone])
        own = np.flatnonzero(np.isin(there, rows))
        known_there = np.isin(there[own], known)
        return there[own], Pool(loaded.schema, bank.chances[own], bank.nuance[own], known_there)


def drawn(rows: Numbers, seed: int) -> Numbers:
    """Rows in the order in which they are labelled at random, so that fewer are part of more."""
    return np.random.default_rng(seed).permutation(rows)


def markdown(data: Data) -> str:
    """Means and sample standard deviations over seeds: a line a number of labelled images, then
    one a way to choose more, with what it gains over random ones, seed by seed."""
    columns = [
        Column(f"{heading}, {split}", (split, figure), form)
        for split in (SPLIT, "valid")
        for figure, heading, form in (("map", "MAP", ".2f"), ("accuracy", "accuracy", ".3f"))
    ]
    header = ["seeds", *(column.heading for column in columns)]

    def line(name: str, rows: list[Data]) -> list[str]:
        cells = (column.text([column.of(row) for row in rows]) for column in columns)
        return [name, str(len(rows)), *cells]

    curve = [row for row in data["rows"] if "way" not in row]
    grown: dict[str, list[Data]] = {}
    for row in data["rows"]:
        if "way" in row:
            grown.setdefault(row["way"], []).append(row)
    sizes = sorted({row["labelled"] for row in curve})
    parts = [
        f"{data['dataset']}, {data['backbone']}. Of {data['images']:,} labelled "
        "images of the training split the labels of so many, drawn, are known; `valid`, which "
        "chooses the epoch and calibrates chances, has all of its own. accuracy: of predicted "
        "labels, mean over attributes.",
        table(
            ["labelled images", *header],
            [line(f"{n:,}", [row for row in curve if row["labelled"] == n]) for n in sizes],
        ),
    ]
    if grown:
        chance = {row["seed"]: row for row in grown.get(RANDOM, [])}
        gains = []
        for way, rows in grown.items():
            pairs = [(row, chance[row["seed"]]) for row in rows if row["seed"] in chance]
            if way != RANDOM and pairs:
                gains.append([f"{way} less {RANDOM}", str(len(pairs)), *_gains(columns, pairs)])
        parts += [
            f"{START} labelled images, and {START} more, chosen by the model of the first: "
            "random; unsure: of the highest mean entropy; spread: descriptors farthest from what "
            "is labelled; varied: drawn by k-means++ over descriptors as long as they are unsure.",
            table(["chosen", *header], [line(way, rows) for way, rows in grown.items()] + gains),
        ]
    return "\n\n".join([*parts, f"Commit {data['commit']}, {data['machine']}."])


def _gains(columns: Sequence[Column], pairs: Sequence[tuple[Data, Data]]) -> list[str]:
    cells = []
    for column in columns:
        both = [(column.of(one), column.of(other)) for one, other in pairs]
        cells.append(column.text([a - b for a, b in both if a is not None and b is not None], "+"))
    return cells


@dataclass(frozen=True, kw_only=True)
class Options(Trained):
    """How many labels, and which."""

    sizes: Annotated[str, "Numbers of labelled images, at most all: A,B."] = "50,200,1000,5000"
    choices: Annotated[str | None, f"Ways to choose more: {RANDOM},{','.join(WAYS)}."] = None


@bench_command("labels", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure what more labelled images are worth, and choosing them."""
    ways = [] if options.choices is None else chosen_names(options.choices, [RANDOM, *WAYS])
    shared: dict[str, Any] = {own.name: getattr(options, own.name) for own in fields(Trained)}
    runs = LabelRuns.of(MAP, Setting(**shared, rows=WHOLE))
    labelled = labelled_rows(runs.dataset)
    sizes = sorted({min(size, len(labelled)) for size in _numbers(options.sizes)})
    if ways and len(labelled) < 2 * START:
        raise DataError(
            f"{runs.dataset.name} has {len(labelled):,} labelled images in its train split; to "
            f"choose among them takes more than {2 * START}"
        )
    trial = "" if options.epochs is None else f"-{options.epochs}-epochs"
    about = {
        "dataset": runs.dataset.name,
        "backbone": options.backbone,
        "images": len(labelled),
        "data": data_hash(runs.dataset),
    }
    rows: list[Data] = []

    def made(known: Numbers, seed: int, where: str, **which: str) -> Result:
        own, run = runs.trained_on(known, seed)
        record = own.make(run, f"{where}, seed {seed}")
        rows.append({"labelled": len(known), "seed": seed} | which | record)
        stem = f"labels-{runs.dataset.name}-{options.file_part}{trial}"
        return stem, about | {"rows": rows}

    for seed in range(options.seeds):
        order = drawn(labelled, seed)
        for size in sizes:
            yield made(order[:size], seed, f"{size:,} labelled")
        for way in ways:
            known = order[:START]
            if way == RANDOM:
                more = order[START : 2 * START]
            else:
                own, run = runs.trained_on(known, seed)
                own.trained(run, f"{START} labelled, seed {seed}")
                there, pool = own.pool(run, labelled, known)
                more = there[WAYS[way](pool, START, seed)]
            yield made(np.append(known, more), seed, f"{START} more, {way}", way=way)


def _numbers(text: str) -> list[int]:
    """Of `50,200`; raises UsageError."""
    numbers = [whole_number(part) for part in split_names("--sizes", [text])]
    if not all(numbers):
        raise UsageError(f"--sizes {text}: numbers from 1 on, such as 50,200")
    return [number for number in numbers if number]
