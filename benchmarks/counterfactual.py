"""Whether "this, but ..." finds the one right answer: the same garment with one attribute changed.

    retrieve bench counterfactual --work demo

Trains the demo's model on its wardrobe, or takes the one that `make demo` left in the folder; draws
queries and a hard gallery (`counterfactual_wardrobe.py`), and ranks all pictures but the query by
every model. `--variant ROW`, of `benchmarks/tables/ablations.toml`, trains the demo's model without
a part. Writes `counterfactual-wardrobe.json` and `.md` to `benchmarks/results/`; rows that are not
measured this time stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    Data,
    Result,
    WorkBench,
    bench_command,
    commit_name,
    retrieve,
    train_or_resume,
)
from benchmarks.counterfactual_wardrobe import (
    GALLERY_SEED,
    LABELS,
    Counterfactual,
    draw_counterfactuals,
)
from benchmarks.measured_rows import MODELS, measured_rows, with_kept_rows
from benchmarks.tables.keys import data_hash
from benchmarks.tables.row_file import (
    ABLATIONS,
    WHOLE,
    chosen_names,
    config_toml,
    read_row_file,
    with_row,
)
from benchmarks.tables.summary import Column, means
from retrieval.evaluation.encoded_split import align_dataset, encode_split
from retrieval.evaluation.scorer import Scorer
from retrieval.options import COUNT
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.files import write_file
from training.run import read_config

CONFIG = Path(__file__).with_name("demo.toml")
STEM = "counterfactual-wardrobe"
SIZE = 96
DRAWING = 1  # counted up whenever pictures are drawn in another way


def evaluate_counterfactual(
    part: Dataset, scorer: Scorer, queries: Sequence[Counterfactual]
) -> Data:
    """Ask for the changed value of every query and look for the answer among the pictures.

    Returns `figures` of all queries, and as `attributes` of those of each.
    """
    row_of = {path: row for row, path in enumerate(part.paths)}
    found: dict[str, list[tuple[int, int]]] = {}
    values = [part.schema.value_of(one.attribute, one.wanted) for one in queries]
    # Requests of one value come together, as scorers like it.
    for wanted, one in sorted(zip(values, queries, strict=True), key=lambda pair: pair[0]):
        query, answer, unchanged = (row_of[p] for p in (one.query, one.answer, one.unchanged))
        scores = scorer.named(query, [wanted])
        ranks = rank_of(scores, answer, query), rank_of(scores, unchanged, query)
        found.setdefault(one.attribute, []).append(ranks)
    every = [ranks for of_one in found.values() for ranks in of_one]
    return figures(every) | {"attributes": {name: figures(own) for name, own in found.items()}}


def rank_of(scores: NDArray[np.float32], row: int, query: int) -> int:
    """Rank, from 1, of a row by (-score, row); the query takes no part."""
    ahead = (scores > scores[row]) | ((scores == scores[row]) & (np.arange(len(scores)) < row))
    ahead[query] = False
    return 1 + int(ahead.sum())


def figures(ranks: list[tuple[int, int]]) -> Data:
    """How high the answer stands among all pictures but the query, all in [0, 1].

    Mean reciprocal rank; shares of the queries where it is first, or among the first 10, and where
    the unchanged garment, drawn anew, is among these.
    """
    answer, unchanged = np.array(ranks).T
    return {
        "mrr": float((1 / answer).mean()),
        "r1": float((answer == 1).mean()),
        "r10": float((answer <= 10).mean()),
        "unchanged10": float((unchanged <= 10).mean()),
        "queries": len(ranks),
    }


def markdown(data: Data) -> str:
    """The figures as Markdown, means over seeds."""
    headings = {"mrr": "MRR", "r1": "R@1", "r10": "R@10"}
    headings["unchanged10"] = "the unchanged garment in 10"
    columns = [Column(heading, (name,), ".3f") for name, heading in headings.items()]
    rows = data["rows"]
    each = [Column(name, ("attributes", name, "mrr"), ".3f") for name in rows[0]["attributes"]]
    parts = (
        f"The one right answer among {data['pictures'] - 1:,} rendered pictures: the query's "
        f"garment with one attribute changed, drawn anew; {data['queries']} queries.",
        means(rows, columns),
        "MRR by the attribute that is changed:",
        means(rows, each),
    )
    return "\n\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class Options(WorkBench):
    """What is drawn, and which models look for it."""

    work: Annotated[Path, "Folder of wardrobe, model and gallery."] = Path("runs/counterfactual")
    queries: Annotated[int, click.IntRange(min=9)] = 300
    others: Annotated[int, click.IntRange(min=0)] = 5100
    epochs: Annotated[int | None, COUNT, "Fewer, to try it out."] = None
    seed: Annotated[int, click.IntRange(0, 2**30 - 1)] = 0
    variant: Annotated[str, "A row of tables/ablations.toml."] = WHOLE
    rows: Annotated[str | None, "Only these, A,B [default: all; of a variant, m2fashion]."] = None


@bench_command("counterfactual", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Draw counterfactuals, rank them by every model, and write what was found."""
    work, variant, seed, some = options.work, options.variant, options.seed, options.rows
    models = chosen_names(some if variant == WHOLE else some or WHOLE, MODELS)
    wardrobe, workers = work / "wardrobe", max(1, options.workers)
    if not (wardrobe / LABELS).is_file():
        size = ["--size", SIZE, "--workers", workers, "--overwrite"]
        retrieve("wardrobe", wardrobe, "--count", 7000, *size)
    run = run_folder(work, variant, seed)
    words = ["--dataset", wardrobe, "--config", config_of(variant, run), "--seed", seed]
    train_or_resume(run, words + ([] if options.epochs is None else ["--epochs", options.epochs]))
    folder = work / f"counterfactual-{options.queries}-{options.others}-v{DRAWING}"
    drawn = draw_counterfactuals(folder, options.queries, options.others, SIZE, workers=workers)

    loaded = load_checkpoint(run)
    train, gallery = (
        align_dataset(load_dataset(str(root)), loaded.schema).dataset for root in (wardrobe, folder)
    )
    encoded = encode_split(loaded.model, gallery, "all", loaded.preprocessing, options.workers)
    measured = []
    for row in measured_rows(models, loaded, encoded, train, options, seed):
        own = {"model": row.model, "variant": variant, "seed": seed}
        own |= evaluate_counterfactual(encoded.dataset, row.scorer, drawn)
        measured.append(own | {"commit": commit_name()})
        click.echo(f"{row.model}: MRR {own['mrr']:.3f}, R@10 {own['r10']:.3f}", err=True)
    ground = data_hash(gallery)
    about = {"ground": ground, "queries": len(drawn), "pictures": len(encoded.dataset)}
    kept = with_kept_rows(options.results / f"{STEM}.json", measured, ground)
    yield STEM, about | {"size": SIZE, "gallery_seed": GALLERY_SEED, "rows": kept}


def run_folder(work: Path, variant: str, seed: int) -> Path:
    """Of a model; the demo's own is `run`."""
    parts = ["run", *([] if variant == WHOLE else [variant]), *([] if seed == 0 else [str(seed)])]
    return work / "-".join(parts)


def config_of(variant: str, run: Path) -> Path:
    """The demo's config, or a file beside the run with what a variant changes in it."""
    if variant == WHOLE:
        return CONFIG
    (row,) = read_row_file(ABLATIONS).chosen(variant)
    path = run.with_name(f"{run.name}.toml")
    write_file(path, config_toml(with_row(read_config(CONFIG), row)).encode())
    return path
