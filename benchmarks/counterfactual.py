"""Whether "this, but ..." finds the one right answer: the same garment with one attribute changed.

    retrieve bench counterfactual --work demo

Trains the demo's model on its wardrobe, or takes the one that `make demo` left in the folder; draws
queries and a hard gallery (`counterfactual_wardrobe.py`), and ranks all pictures but the query by
every model. `--variant ROW`, of `benchmarks/tables/ablations.toml`, trains the demo's model without
a part. Writes `counterfactual-wardrobe.json` and `.md` to `benchmarks/results/`; rows that are not
measured this time stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.ablations_table import ROWS, WHOLE
from benchmarks.write_results import RESULTS, write_results

if TYPE_CHECKING:
    from benchmarks.counterfactual_wardrobe import Counterfactual
    from retrieval.evaluation.scorer import Scorer
    from training.datasets.dataset import Dataset

CONFIG = Path(__file__).with_name("demo.toml")
STEM = "counterfactual-wardrobe"
SIZE = 96
GALLERY_SEED = 271_828  # far from the wardrobes that models are trained on
CODE = ("training/wardrobe/*.py", "benchmarks/counterfactual_wardrobe.py")  # what draws pictures


@dataclass(frozen=True)
class CounterfactualScore:
    """How high the answer stands among all pictures but the query. All in [0, 1].

    Args:
        mrr: mean reciprocal rank.
        r1, r10: share of the queries where it is the first hit, or among the first 10.
        unchanged10: share where the unchanged garment, drawn anew, is among the first 10.
        queries: number of queries.
    """

    mrr: float
    r1: float
    r10: float
    unchanged10: float
    queries: int


@dataclass(frozen=True)
class CounterfactualReport:
    """The score of all queries, and of those of each attribute."""

    all: CounterfactualScore
    attributes: dict[str, CounterfactualScore]


def evaluate_counterfactual(
    part: Dataset, scorer: Scorer, queries: Sequence[Counterfactual], keep: float | None = None
) -> CounterfactualReport:
    """Ask for the changed value of every query and look for the answer.

    Args:
        part: the pictures that are ranked; its rows are the scorer's.
        scorer: what is measured.
        queries: their pictures are in `part`.
        keep: the dial, as `Scorer.named` takes it.
    """
    row_of = {path: row for row, path in enumerate(part.paths)}
    found: dict[str, list[tuple[int, int]]] = {}
    values = [part.schema.value_of(one.attribute, one.wanted) for one in queries]
    # Requests of one value come together, as scorers like it.
    for wanted, one in sorted(zip(values, queries, strict=True), key=lambda pair: pair[0]):
        query = row_of[one.query]
        scores = scorer.named(query, [wanted], keep=keep)
        ranks = tuple(rank_of(scores, row_of[path], query) for path in (one.answer, one.unchanged))
        found.setdefault(one.attribute, []).append((ranks[0], ranks[1]))
    every = [ranks for of_one in found.values() for ranks in of_one]
    return CounterfactualReport(
        _score(every), {name: _score(ranks) for name, ranks in found.items()}
    )


def rank_of(scores: NDArray[np.float32], row: int, query: int) -> int:
    """Rank, from 1, of a row by (-score, row); the query takes no part."""
    ahead = (scores > scores[row]) | ((scores == scores[row]) & (np.arange(len(scores)) < row))
    ahead[query] = False
    return 1 + int(ahead.sum())


def _score(ranks: list[tuple[int, int]]) -> CounterfactualScore:
    answer, unchanged = np.array(ranks).T
    return CounterfactualScore(
        float((1 / answer).mean()),
        float((answer == 1).mean()),
        float((answer <= 10).mean()),
        float((unchanged <= 10).mean()),
        len(ranks),
    )


@click.command("counterfactual")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("runs/counterfactual"),
    show_default=True,
    help="Holds wardrobe, run and pictures; the folder of a demo will do.",
)
@click.option("--queries", type=click.IntRange(min=9), default=300, show_default=True)
@click.option("--others", type=click.IntRange(min=0), default=5100, show_default=True)
@click.option("--train-count", type=click.IntRange(min=200), default=7000, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Fewer, to try it out.")
@click.option("--seed", type=click.IntRange(0, 2**30 - 1), default=0, show_default=True)
@click.option(
    "--variant",
    default=WHOLE,
    show_default=True,
    metavar="ROW",
    help="Of benchmarks/tables/ablations.toml: what the demo's model does without.",
)
@click.option(
    "--rows",
    metavar="A,B",
    help="Measure only these models [default: all; of a variant, m2fashion].",
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
def command(
    work: Path,
    queries: int,
    others: int,
    train_count: int,
    epochs: int | None,
    seed: int,
    variant: str,
    rows: str | None,
    results: Path,
    workers: int,
) -> None:
    """Draw counterfactuals, rank them by every model, and write what was found."""
    from benchmarks.common import retrieve, train_or_resume
    from benchmarks.counterfactual_wardrobe import LABELS
    from benchmarks.kept_rows import with_kept_rows
    from benchmarks.machine import commit_name, machine_name
    from benchmarks.measured_rows import chosen_models, measured_rows
    from benchmarks.tables.keys import data_hash
    from retrieval.evaluation.aligned_dataset import align_dataset
    from retrieval.evaluation.encoded_split import encode_split
    from training.checkpoint import load_checkpoint
    from training.datasets import load_dataset

    models = chosen_models(rows if variant == WHOLE else rows or "m2fashion")
    wardrobe = work / "wardrobe"
    if not (wardrobe / LABELS).is_file():
        size = ["--size", SIZE, "--workers", workers, "--overwrite"]
        retrieve("wardrobe", wardrobe, "--count", train_count, *size)
    limit = [] if epochs is None else ["--epochs", epochs]
    run = run_folder(work, variant, seed)
    config = config_of(variant, run)
    garments = ["--dataset", wardrobe]
    train_or_resume(run, [*garments, "--config", config, "--seed", seed, *limit])
    folder, drawn = _drawn(work, queries, others, workers)

    loaded = load_checkpoint(run)
    train = align_dataset(load_dataset(str(wardrobe)), loaded.schema).dataset
    gallery = align_dataset(load_dataset(str(folder)), loaded.schema).dataset
    encoded = encode_split(loaded.model, gallery, "all", loaded.preprocessing, workers)
    measured = []
    for row in measured_rows(models, loaded, encoded, train, work / "cache", workers, seed):
        report = evaluate_counterfactual(encoded.dataset, row.scorer, drawn)
        own = {"model": row.model, "variant": variant, "seed": seed, **asdict(report.all)}
        own |= {"attributes": {name: asdict(s) for name, s in report.attributes.items()}}
        measured.append(own | {"commit": commit_name()})
        click.echo(f"{row.model}: MRR {report.all.mrr:.3f}, R@10 {report.all.r10:.3f}", err=True)
    data = {
        "ground": data_hash(gallery),
        "queries": len(drawn),
        "pictures": len(encoded.dataset),
        "size": SIZE,
        "gallery_seed": GALLERY_SEED,
        "machine": machine_name("cpu"),
        "rows": with_kept_rows(results / f"{STEM}.json", measured, data_hash(gallery)),
    }
    write_results(results, STEM, data, markdown(data))
    click.echo(markdown(data))


def run_folder(work: Path, variant: str, seed: int) -> Path:
    """Of a model; the demo's own is `run`."""
    parts = ["run", *([] if variant == WHOLE else [variant]), *([] if seed == 0 else [str(seed)])]
    return work / "-".join(parts)


def config_of(variant: str, run: Path) -> Path:
    """The demo's config, or a file beside the run with what a variant changes in it."""
    from benchmarks.tables.config_toml import config_toml
    from benchmarks.tables.row_file import read_row_file, with_row
    from training.files import write_file
    from training.run import read_config

    if variant == WHOLE:
        return CONFIG
    (row,) = read_row_file(ROWS).chosen(variant)
    path = run.with_name(f"{run.name}.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, config_toml(with_row(read_config(CONFIG), row)).encode())
    return path


def _drawn(
    work: Path, queries: int, others: int, workers: int
) -> tuple[Path, list[Counterfactual]]:
    """The folder of pictures and its queries, drawn if they are not there."""
    from benchmarks.counterfactual_wardrobe import (
        QUERIES,
        draw_counterfactuals,
        read_counterfactuals,
    )
    from benchmarks.tables.keys import ROOT
    from retrieval.console import counting
    from training.code_hash import code_hash

    folder = work / f"counterfactual-{queries}-{others}-{code_hash(ROOT, CODE)[:8]}"
    if (folder / QUERIES).is_file():
        return folder, read_counterfactuals(folder)
    total = 3 * queries + others
    with counting("drawing", total) as bar:

        def one(done: int) -> None:
            bar(1)

        return folder, draw_counterfactuals(
            folder, queries, others, SIZE, GALLERY_SEED, workers, one
        )


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown, means over seeds."""
    from benchmarks.kept_rows import mean_rows

    names = list(data["rows"][0]["attributes"])
    flat = [
        row | {f"mrr {name}": row["attributes"][name]["mrr"] for name in names}
        for row in data["rows"]
    ]
    columns = {
        "mrr": ("MRR", ".3f"),
        "r1": ("R@1", ".3f"),
        "r10": ("R@10", ".3f"),
        "unchanged10": ("the unchanged garment in 10", ".3f"),
    }
    lines = [
        f"The one right answer among {data['pictures'] - 1:,} rendered pictures: the query's "
        f"garment with one attribute changed, drawn anew; {data['queries']} queries.",
        "",
        *mean_rows(flat, columns, "model"),
        "",
        "MRR by the attribute that is changed:",
        "",
        *mean_rows(flat, {f"mrr {name}": (name, ".3f") for name in names}, "model"),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command()
