"""`retrieve evaluate`: attribute-specific MAP of a checkpoint on a split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.console import print_json, print_table, stderr, stdout
from retrieval.dataset_options import dataset_options
from training.errors import DataError, ResourceError, UsageError

if TYPE_CHECKING:
    from training.datasets.dataset import Dataset
    from training.schema import Schema


@click.command("evaluate")
@dataset_options
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), metavar="RUN")
@click.option("--split", default="test", show_default=True, help="train, valid, test or all.")
@click.option("--mode", type=click.Choice(["type", "value"]), default="type", show_default=True)
@click.option("--floor", is_flag=True, help="Also the average-pooled features of this backbone.")
@click.option(
    "--combinations",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Combinations of two and three values to search by; 0: none.",
)
@click.option("--combination-queries", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--presence-weight",
    type=click.FloatRange(min=0),
    help="Of the predicted values beside likeness, in combinations [default: as queries have it].",
)
@click.option(
    "--likeness-only",
    is_flag=True,
    help="Rank combinations by likeness under the named values and nothing else: for models whose "
    "heads no loss has taught to predict values.",
)
@click.option("--max-queries", type=click.IntRange(min=1), help="Rank only about this many.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of draws and intervals.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the reports [default: RUN/evaluation].",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder that keeps the backbone's maps for the next checkpoint of the same backbone.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    checkpoint: Path,
    split: str,
    mode: str,
    floor: bool,
    combinations: int,
    combination_queries: int,
    presence_weight: float | None,
    likeness_only: bool,
    max_queries: int | None,
    seed: int,
    out: Path | None,
    cache: Path | None,
    device: str,
    workers: int,
    as_json: bool,
) -> int:
    """Measure attribute-specific MAP, chance, lift and intervals; combinations; the floor.

    Prints a table and writes it as JSON and Markdown.
    """
    from indexer.device import choose_device
    from retrieval.evaluation.attribute_map import evaluate_attributes
    from retrieval.evaluation.combination_score import AS_QUERIES, Rank, evaluate_combinations
    from retrieval.evaluation.combinations import draw_combinations, save_combinations
    from retrieval.evaluation.encoded_split import encode_split
    from retrieval.evaluation.report import definition, to_json, to_markdown, to_tables
    from retrieval.evaluation.scoring import (
        BY_LIKENESS,
        CombinationRanker,
        LikenessRanker,
        floor_embed,
    )
    from retrieval.ranking import PRESENCE_WEIGHT
    from training.allocator import keep_freed_memory
    from training.checkpoint import load_checkpoint

    if likeness_only and presence_weight is not None:
        raise UsageError("--likeness-only has no --presence-weight; give one of them")
    keep_freed_memory()

    choice = choose_device(device)
    loaded = load_checkpoint(checkpoint, choice.device)
    dataset = _load(name, root, loaded.schema)
    encoded = encode_split(loaded.model, dataset, split, loaded.preprocessing, workers, cache=cache)
    part, bank, failures = encoded.dataset, encoded.bank, encoded.failures
    for path, reason in failures[:5]:
        stderr.print(f"left out {path}: {reason}", markup=False, soft_wrap=True)

    report = evaluate_attributes(
        part, split, "value" if mode == "value" else "type", bank.embed, seed, max_queries
    )
    floor_report = None
    if floor:
        floor_report = evaluate_attributes(
            part, split, "type", floor_embed(bank), seed, max_queries
        )
    drawn = draw_combinations(part, split, combinations, seed=seed) if combinations else []
    combined = None
    if drawn:
        ranked_by = AS_QUERIES
        if presence_weight is not None:
            ranked_by += f", but with a presence weight of {presence_weight:g}"
        ranker: Rank
        if likeness_only:
            ranker, ranked_by = LikenessRanker(bank, part.schema), BY_LIKENESS
        else:
            weight = PRESENCE_WEIGHT if presence_weight is None else presence_weight
            ranker = CombinationRanker(bank, part.schema, weight)
        combined = evaluate_combinations(
            part, split, ranker, drawn, combination_queries, seed, ranked_by
        )
    elif combinations:
        stderr.print("no combination has enough images in this split; none measured")

    data: dict[str, Any] = to_json(report, combined, floor_report)
    data |= {
        "checkpoint": str(loaded.folder),
        "checkpoint_hash": loaded.hash,
        "training_seed": loaded.training.get("seed"),
        "parameters": loaded.model.parameters_of_embedder(),
        "images": len(part),
        "unreadable": len(failures),
    }
    folder = checkpoint / "evaluation" if out is None else out
    stem = f"{dataset.name}-{split}-{mode}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.json").write_text(json.dumps(data, indent=2) + "\n")
        # A folder's name may hold bytes that are not UTF-8.
        markdown = to_markdown(report, combined, floor_report).encode("utf-8", "backslashreplace")
        (folder / f"{stem}.md").write_bytes(markdown)
        if drawn:
            drawn_file = folder / f"{dataset.name}-{split}-combinations.json"
            save_combinations(drawn_file, drawn, part.schema, split, seed)
    except OSError as error:
        raise ResourceError(f"cannot write the reports to {folder}: {error}") from error
    if as_json:
        print_json(data)
    else:
        for table in to_tables(report, combined, floor_report):
            print_table(table)
        trained = f"{loaded.training.get('seed', 'unknown')} (training), {seed} (evaluation)"
        stdout.print(f"{definition(report)} Seeds: {trained}.", markup=False)
        stdout.print(f"written to {folder / stem}.json and .md", markup=False, soft_wrap=True)
    return 0


def _load(name: str, root: Path | None, schema: Schema) -> Dataset:
    """The dataset with the model's attributes.

    Raises:
        DataError: its attributes or values are not the model's: conditions would mean other things.
    """
    from training.datasets import load_dataset

    try:
        dataset = load_dataset(name, root, [a.name for a in schema.attributes])
    except UsageError:
        dataset = load_dataset(name, root)  # raises again if the name itself is wrong
    if dataset.schema.hash != schema.hash:
        theirs = ", ".join(a.name for a in dataset.schema.attributes)
        raise DataError(
            f"the checkpoint was trained on other attributes or values than {dataset.name} has "
            f"({schema.size} values of {', '.join(a.name for a in schema.attributes)} against "
            f"{dataset.schema.size} of {theirs}); evaluate it on the dataset that it was trained on"
        )
    return dataset
