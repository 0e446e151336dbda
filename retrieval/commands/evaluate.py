"""`retrieve evaluate`: how well a checkpoint finds what is asked for, on a labelled split."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.console import print_json, print_table, stderr, stdout
from retrieval.dataset_options import dataset_options, item_option
from training.errors import ResourceError

if TYPE_CHECKING:
    from training.datasets.dataset import Dataset
    from training.schema import Schema

NO_ITEMS = (
    "the dataset does not say which images show one item; name the column of labels.csv that does "
    "with --item-column"
)


@click.command("evaluate")
@dataset_options
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), metavar="RUN")
@click.option("--split", default="test", show_default=True, help="A split of the dataset, or all.")
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
    "--likeness-only",
    is_flag=True,
    help="Rank combinations by likeness under the named values and nothing else: for models whose "
    "heads no loss has taught to predict values.",
)
@item_option
@click.option("--max-queries", type=click.IntRange(min=1), help="Of MAP, rank only about so many.")
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
    likeness_only: bool,
    item_column: str | None,
    max_queries: int | None,
    seed: int,
    out: Path | None,
    cache: Path | None,
    device: str,
    workers: int,
    as_json: bool,
) -> int:
    """Measure attribute-specific MAP with chance and intervals, combinations, likeness, ties, and
    requests that exchange or exclude a value.

    Prints tables and writes them as JSON and Markdown. Values are matched with the model's by name.
    """
    from indexer.device import choose_device
    from retrieval.evaluation.attribute_map import Embed, evaluate_attributes
    from retrieval.evaluation.combinations import (
        draw_combinations,
        evaluate_combinations,
        save_combinations,
    )
    from retrieval.evaluation.encoded_split import encode_split
    from retrieval.evaluation.exclusion import evaluate_exclusion
    from retrieval.evaluation.likeness import evaluate_likeness, near_ties
    from retrieval.evaluation.manipulation import evaluate_manipulation
    from retrieval.evaluation.report import (
        Evaluation,
        definition,
        to_json,
        to_markdown,
        to_tables,
    )
    from retrieval.evaluation.scorer import Scorer
    from retrieval.evaluation.scoring import (
        ConditionScorer,
        DescriptorScorer,
        FloorScorer,
        floor_embed,
    )
    from training.allocator import keep_freed_memory
    from training.checkpoint import load_checkpoint
    from training.datasets.catalogue import SPLIT_NAMES

    keep_freed_memory()

    choice = choose_device(device)
    loaded = load_checkpoint(checkpoint, choice.device)
    dataset = _load(name, root, loaded.schema, item_column)
    split = SPLIT_NAMES.get(split.casefold(), split)
    encoded = encode_split(loaded.model, dataset, split, loaded.preprocessing, workers, cache=cache)
    part, bank, failures = encoded.dataset, encoded.bank, encoded.failures
    for path, reason in failures[:5]:
        stderr.print(f"left out {path}: {reason}", markup=False, soft_wrap=True)

    described = DescriptorScorer.of(bank, part.schema)
    embed: Embed = bank.embed
    embed_queries: Embed | None = None
    if mode == "type" and loaded.model.values is not None:  # its embeddings are descriptors
        embed, embed_queries = described.embed, described.embed_queries
    report = evaluate_attributes(
        part,
        split,
        "value" if mode == "value" else "type",
        embed,
        seed,
        max_queries,
        embed_queries,
    )
    floor_report = None
    if floor:
        floor_report = evaluate_attributes(
            part, split, "type", floor_embed(bank), seed, max_queries
        )
    scorer: Scorer = ConditionScorer(bank, part.schema) if likeness_only else described
    drawn = draw_combinations(part, split, combinations, seed=seed) if combinations else []
    combined = None
    if drawn:
        combined = evaluate_combinations(part, split, scorer, drawn, combination_queries, seed)
    elif combinations:
        stderr.print("no combination has enough images in this split; none measured")
    likeness = None
    if part.items is None:
        stderr.print(f"likeness not measured: {NO_ITEMS}", markup=False, soft_wrap=True)
    else:
        likeness = evaluate_likeness(part, scorer, FloorScorer(bank.pooled), seed)
        if likeness is None:
            stderr.print("likeness not measured: no image has 1 to 4 others of its item here")
    manipulation = evaluate_manipulation(part, scorer, seed)
    if manipulation is None:
        stderr.print("manipulation not measured: no image has the labels of any other but one")
    without = evaluate_exclusion(part, scorer, seed)
    if without is None:
        stderr.print("requests without a value not measured: too few labelled images")
    ties = near_ties(part, embed, seed, embed_queries)
    if ties is None:
        stderr.print("ties not measured: fewer than eleven images")
    found = Evaluation(report, combined, floor_report, likeness, manipulation, without, ties)

    data: dict[str, Any] = to_json(found)
    data |= {
        "checkpoint": str(loaded.folder),
        "checkpoint_hash": loaded.hash,
        "training_seed": loaded.training.get("seed"),
        "parameters": loaded.model.parameters_of_embedder(),
        "images": len(part),
        "unreadable": len(failures),
    }
    folder = checkpoint / "evaluation" if out is None else out
    split_name = re.sub(r"[^\w.-]", "_", split)  # of the user's own choice
    stem = f"{dataset.name}-{split_name}-{mode}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.json").write_text(json.dumps(data, indent=2) + "\n")
        # A folder's name may hold bytes that are not UTF-8.
        markdown = to_markdown(found).encode("utf-8", "backslashreplace")
        (folder / f"{stem}.md").write_bytes(markdown)
        if drawn:
            drawn_file = folder / f"{dataset.name}-{split_name}-combinations.json"
            save_combinations(drawn_file, drawn, part.schema, split, seed)
    except OSError as error:
        raise ResourceError(f"cannot write the reports to {folder}: {error}") from error
    if as_json:
        print_json(data)
    else:
        for table in to_tables(found):
            print_table(table)
        trained = f"{loaded.training.get('seed', 'unknown')} (training), {seed} (evaluation)"
        stdout.print(f"{definition(report)} Seeds: {trained}.", markup=False)
        stdout.print(f"written to {folder / stem}.json and .md", markup=False, soft_wrap=True)
    return 0


def _load(name: str, root: Path | None, schema: Schema, item_column: str | None) -> Dataset:
    """The dataset in the model's numbering; what only one of them knows is named on stderr.

    Raises:
        DataError: they have no value in common.
    """
    from retrieval.evaluation.aligned_dataset import align_dataset
    from training.datasets import load_with_schema

    dataset = load_with_schema(schema, name, root, item_column)
    aligned = align_dataset(dataset, schema)
    for who, names in (
        ("the model does not know", aligned.unknown_to_model),
        (f"{dataset.name} does not know", aligned.unknown_to_dataset),
    ):
        if names:
            text = f"left out, {who}: {', '.join(names)}"
            stderr.print(text, markup=False, soft_wrap=True)
    return aligned.dataset
