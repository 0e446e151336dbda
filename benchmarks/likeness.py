"""Which one, not only what it is: likeness, changes and exclusions of M2Fashion and its rivals.

    retrieve bench likeness --dataset data/fashion-products --item-column name --weights FILE

Trains M2Fashion (the row `m2fashion` of `benchmarks/tables/map.toml`; runs are kept and resumed)
and ADDE-M with every seed, and measures them, the shop's baseline and the floor on the test split.
Writes `likeness-DATASET-BACKBONE.json` and `.md` to `benchmarks/results/`; rows that are
not measured this time stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import click

from benchmarks.common import Data, Result, bench_command, commit_name
from benchmarks.measured_rows import MODELS, MeasuredRow, measured_rows, with_kept_rows
from benchmarks.tables.keys import data_hash
from benchmarks.tables.measure import COMBINATIONS, SPLIT, Runs
from benchmarks.tables.options import Setting
from benchmarks.tables.row_file import MAP, WHOLE, chosen_names
from benchmarks.tables.summary import Column, means
from retrieval.evaluation.combinations import draw_combinations
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.manipulation import DIAL
from retrieval.evaluation.report import Protocols, Ranking, evaluate_split
from retrieval.evaluation.scorer import FloorScorer, Scorer
from training.checkpoint import load_checkpoint
from training.datasets.dataset import Dataset
from training.device import choose_device

_PERCENT = {"top30": "Top-30", "ndcg": "NDCG@30", "ndcg_target": "target", "ndcg_others": "others"}
_LIKENESS = {
    "query_mrr": "MRR", "query_hard_mrr": "hard", "kept_mrr": "kept MRR", "kept_hard_mrr": "hard",
}  # fmt: skip
_NAMED = {
    "same_p10": "same P@10", "but_p10": "but P@10", "keep10": "but keep@10",
    "violation10": "without: violation@10", "without_keep10": "without: keep@10",
}  # fmt: skip
COLUMNS = [
    Column(heading, (name,), form)
    for group, form in (
        ({"all_map": "MAP"}, ".2f"), (_LIKENESS, ".3f"), (_PERCENT, ".1f"), (_NAMED, ".3f"),
    )
    for name, heading in group.items()
]  # fmt: skip


def measure(row: MeasuredRow, part: Dataset, floor: Scorer) -> Data:
    """All figures of one model on a split; None where something cannot be measured.

    `floor` settles which same-item queries are hard.
    """
    figures: Data = {str(column.path[0]): None for column in COLUMNS}
    ranking = Ranking(row.scorer, row.embed, row.embed_queries, DIAL if row.has_dial else ())
    drawn = draw_combinations(part, SPLIT, COMBINATIONS)
    how = Protocols(("likeness", "manipulation", "without"), drawn)
    found = evaluate_split(part, SPLIT, ranking, floor, how)
    if found.map is not None:
        figures["all_map"] = found.map.all.map
    if (alike := found.likeness) is not None:
        figures |= {"query_mrr": alike.query.mrr, "query_hard_mrr": alike.query.hard_mrr}
        figures |= {"kept_mrr": alike.kept.mrr, "kept_hard_mrr": alike.kept.hard_mrr}
    if (changed := found.manipulation) is not None:
        figures |= asdict(changed.default) | {"curve": [asdict(point) for point in changed.curve]}
        figures["manipulation_keep10"] = changed.default.keep10
    figures["keep10"] = None
    if (combined := found.combinations) is not None:
        figures["same_p10"] = combined.same.precision_at_10
        figures |= {"but_p10": combined.but.precision_at_10, "keep10": combined.but.keep_at_10}
    if (excluded := found.without) is not None:
        figures["violation10"] = excluded.without.violation10
        figures["without_keep10"] = excluded.without.keep10
    return figures


def markdown(data: Data) -> str:
    """The figures as Markdown: means and sample standard deviations over seeds."""
    about = (
        f"{data['dataset']}, {data['split']} split, {data['backbone']}. MRR: the first other "
        "picture of the query's item, hard: of the half whose nearest picture is least alike by "
        "the floor. Top-30 to others: the manipulation protocol, in percent."
    )
    return f"{about}\n\n{means(data['rows'], COLUMNS)}"


@bench_command("likeness", markdown, Setting)
def command(setting: Setting) -> Iterator[Result]:
    """Train what is missing, measure every model with every seed, and write the table."""
    models = chosen_names(setting.rows, MODELS)
    runs = Runs.of(MAP, replace(setting, rows=WHOLE))
    ground = data_hash(runs.dataset)
    stem = f"likeness-{runs.dataset.name}-{setting.file_part}"
    about = {"dataset": runs.dataset.name, "split": SPLIT, "backbone": setting.backbone}
    for number, run in enumerate(runs.chosen(WHOLE)):
        seed = run.config.seed
        runs.trained(run, f"{WHOLE}, seed {seed}")
        loaded = load_checkpoint(runs.folder(run), choose_device(setting.device).device)
        how = loaded.preprocessing, setting.workers
        encoded = encode_split(loaded.model, runs.dataset, SPLIT, *how, cache=setting.cache)
        floor = FloorScorer(encoded.bank.pooled)
        wanted = [model for model in models if model != "floor" or number == 0]
        for row in measured_rows(wanted, loaded, encoded, runs.dataset, setting, seed):
            figures = measure(row, encoded.dataset, floor)
            whose = {"model": row.model, "seed": 0 if row.model == "floor" else seed}
            made = [whose | figures | {"commit": commit_name()}]
            rows = with_kept_rows(setting.results / f"{stem}.json", made, ground)
            yield stem, about | {"ground": ground, "rows": rows}
            click.echo(f"{row.model}, seed {seed}: measured", err=True)
