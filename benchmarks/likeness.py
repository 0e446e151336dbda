"""Which one, not only what it is: likeness, changes and exclusions of M2Fashion and its rivals.

    retrieve bench likeness --dataset data/fashion-products --item-column name --weights FILE

Trains M2Fashion (the row `m2fashion` of `benchmarks/tables/map.toml`; runs are kept and resumed)
and ADDE-M with every seed, and measures them, the shop's baseline and the floor on the test split.
Writes `likeness-DATASET-BACKBONE.json`, `.md` and `.png` to `benchmarks/results/`; rows that are
not measured this time stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.sheet import new_sheet, save_sheet
from benchmarks.write_results import RESULTS, write_results
from retrieval.dataset_options import dataset_options

if TYPE_CHECKING:
    from benchmarks.measured_rows import MeasuredRow
    from retrieval.evaluation.scorer import Scorer
    from training.datasets.dataset import Dataset

SPLIT = "test"
COMBINATIONS = 50  # as many as `retrieve evaluate` draws

COLUMNS = {
    "all_map": ("MAP", ".2f"),
    "query_mrr": ("MRR", ".3f"),
    "query_hard_mrr": ("hard", ".3f"),
    "kept_mrr": ("kept MRR", ".3f"),
    "kept_hard_mrr": ("hard", ".3f"),
    "top30": ("Top-30", ".1f"),
    "ndcg": ("NDCG@30", ".1f"),
    "ndcg_target": ("target", ".1f"),
    "ndcg_others": ("others", ".1f"),
    "same_p10": ("same P@10", ".3f"),
    "but_p10": ("but P@10", ".3f"),
    "keep10": ("but keep@10", ".3f"),
    "violation10": ("without: violation@10", ".3f"),
    "without_keep10": ("without: keep@10", ".3f"),
}
"""Field of a row -> heading and format."""


def measure(row: MeasuredRow, part: Dataset, floor: Scorer) -> dict[str, Any]:
    """All figures of one model on a split; None where something cannot be measured.

    Args:
        row: the model.
        part: the split, with items where likeness is to be measured.
        floor: settles which same-item queries are hard.
    """
    from retrieval.evaluation.attribute_map import evaluate_attributes
    from retrieval.evaluation.combinations import draw_combinations, evaluate_combinations
    from retrieval.evaluation.exclusion import evaluate_exclusion
    from retrieval.evaluation.likeness import evaluate_likeness
    from retrieval.evaluation.manipulation import DIAL, evaluate_manipulation

    figures: dict[str, Any] = dict.fromkeys(COLUMNS)
    if row.embed is not None:
        figures["all_map"] = evaluate_attributes(
            part, SPLIT, "type", row.embed, embed_queries=row.embed_queries
        ).all.map
    alike = None if part.items is None else evaluate_likeness(part, row.scorer, floor)
    if alike is not None:
        figures |= {"query_mrr": alike.query.mrr, "query_hard_mrr": alike.query.hard_mrr}
        figures |= {"kept_mrr": alike.kept.mrr, "kept_hard_mrr": alike.kept.hard_mrr}
    changed = evaluate_manipulation(part, row.scorer, dial=DIAL if row.has_dial else ())
    if changed is not None:
        figures |= asdict(changed.default) | {"curve": [asdict(point) for point in changed.curve]}
        figures["manipulation_keep10"] = changed.default.keep10
    figures["keep10"] = None
    drawn = draw_combinations(part, SPLIT, COMBINATIONS)
    if drawn:
        combined = evaluate_combinations(part, SPLIT, row.scorer, drawn)
        figures["same_p10"] = combined.same.precision_at_10
        figures |= {"but_p10": combined.but.precision_at_10, "keep10": combined.but.keep_at_10}
    excluded = evaluate_exclusion(part, row.scorer)
    if excluded is not None:
        figures["violation10"] = excluded.without.violation10
        figures["without_keep10"] = excluded.without.keep10
    return figures


@click.command("likeness")
@dataset_options
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--weights", metavar="FILE", help="Backbone weights, kept frozen.")
@click.option("--item-column", metavar="NAME", help="Column that tells which pictures show one.")
@click.option("--seeds", type=click.IntRange(1, 16), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="At most this many, to try it out.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Measure these runs of M2Fashion instead of training any.",
)
@click.option("--rows", metavar="A,B", help="Measure only these models [default: all].")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("runs/tables"),
    show_default=True,
    help="Where the runs are kept; tables share them.",
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True)
def command(
    name: str,
    root: Path | None,
    backbone: str,
    weights: str | None,
    item_column: str | None,
    seeds: int,
    epochs: int | None,
    checkpoints: tuple[Path, ...],
    rows: str | None,
    work: Path,
    results: Path,
    device: str,
    workers: int,
) -> None:
    """Train what is missing, measure every model with every seed, and write the table."""
    from benchmarks.kept_rows import with_kept_rows
    from benchmarks.machine import commit_name, machine_name
    from benchmarks.measured_rows import chosen_models, measured_rows
    from benchmarks.tables.keys import data_hash
    from indexer.device import choose_device
    from retrieval.evaluation.encoded_split import encode_split
    from retrieval.evaluation.scoring import FloorScorer
    from training.checkpoint import load_checkpoint
    from training.datasets import load_dataset

    models = chosen_models(rows)
    dataset = load_dataset(name, root, item_column=item_column)
    runs = checkpoints or _trained(
        dataset, name, root, item_column, backbone, weights, seeds, epochs, work, device, workers
    )
    cache = work / "runs" / "cache"
    stem = f"likeness-{dataset.name}-{backbone}"
    data: dict[str, Any] = {"dataset": dataset.name, "split": SPLIT, "backbone": backbone}
    ground = data_hash(dataset)
    data |= {"ground": ground, "machine": machine_name(device), "rows": []}
    for number, run in enumerate(runs):
        loaded = load_checkpoint(run, choose_device(device).device)
        seed = int(loaded.training.get("seed", number))
        encoded = encode_split(
            loaded.model, dataset, SPLIT, loaded.preprocessing, workers, cache=cache
        )
        floor = FloorScorer(encoded.bank.pooled)
        wanted = [model for model in models if model != "floor" or number == 0]
        for row in measured_rows(wanted, loaded, encoded, dataset, cache, workers, seed):
            figures = measure(row, encoded.dataset, floor)
            whose = {"model": row.model, "seed": 0 if row.model == "floor" else seed}
            made = [whose | figures | {"commit": commit_name()}]
            data["rows"] = with_kept_rows(results / f"{stem}.json", made, ground)
            write_results(results, stem, data, markdown(data))  # an early stop keeps what is done
            click.echo(f"{row.model}, seed {seed}: measured", err=True)
    draw_curve(data["rows"], results / f"{stem}.png")
    click.echo(markdown(data))


def _trained(
    dataset: Dataset,
    name: str,
    root: Path | None,
    item_column: str | None,
    backbone: str,
    weights: str | None,
    seeds: int,
    epochs: int | None,
    work: Path,
    device: str,
    workers: int,
) -> tuple[Path, ...]:
    """Folders of M2Fashion's runs, a seed each, trained if need be."""
    from benchmarks.machine import machine_name
    from benchmarks.map_table import ROWS
    from benchmarks.tables.keys import ground
    from benchmarks.tables.measure import trained_run
    from benchmarks.tables.plan import Setting, plan_runs
    from benchmarks.tables.row_file import read_row_file
    from benchmarks.tables.run_store import RunStore
    from benchmarks.tables.runner import CommandLineRunner, source_options

    def tell(line: str) -> None:
        click.echo(line, err=True)

    if weights is not None and Path(weights).is_file():
        weights = str(Path(weights).resolve())
    table = read_row_file(ROWS)
    setting = Setting(dataset.name, backbone, weights, epochs)
    planned = plan_runs(table, table.chosen("m2fashion"), seeds, setting, ground(dataset, weights))
    store = RunStore(work)
    source = source_options(name, root, item_column)
    runner = CommandLineRunner(dataset, source, device, workers)
    machine = machine_name(device)
    for run in planned:
        trained_run(run, store, runner, machine, f"m2fashion, seed {run.config.seed}", tell)
    return tuple(store.folder(run) for run in planned)


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown: means and sample standard deviations over seeds."""
    from benchmarks.kept_rows import mean_rows

    lines = [
        f"{data['dataset']}, {data['split']} split, {data['backbone']}. MRR: the first other "
        "picture of the query's item, hard: of the half whose nearest picture is least alike by "
        "the floor. Top-30 to others: the manipulation protocol, in percent.",
        "",
        *mean_rows(data["rows"], COLUMNS, "model"),
        "",
    ]
    return "\n".join(lines)


def draw_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what a change costs: changed P@10 against keep@10, a line for a dial, else a point.

    Args:
        rows: of a result; the first seed of each model is drawn.
        path: of the PNG; it is not written if no row has figures of changes.

    Raises:
        ResourceError: matplotlib is not installed, or the file cannot be written.
    """
    from benchmarks.measured_rows import TITLES

    sheet = new_sheet(6.4, 4.4)
    panel = sheet.subplots()
    drawn: set[str] = set()
    for row in rows:
        if row["model"] in drawn or row.get("manipulation_keep10") is None:
            continue
        drawn.add(row["model"])
        (point,) = panel.plot(
            row["manipulation_keep10"],
            row["changed_p10"],
            "o",
            label=TITLES.get(row["model"], row["model"]),
        )
        curve = row.get("curve") or []
        panel.plot(
            [at["keep10"] for at in curve],
            [at["changed_p10"] for at in curve],
            ".-",
            color=point.get_color(),
            linewidth=1,
        )
    if not drawn:
        return
    panel.set_xlabel("kept: keep@10")
    panel.set_ylabel("changed: P@10")
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False)
    save_sheet(sheet, path)


if __name__ == "__main__":
    command()
