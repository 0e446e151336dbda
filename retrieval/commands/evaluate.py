"""`retrieve evaluate`: how well a checkpoint finds what is asked for, on a labelled split."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click

from retrieval.console import print_json, print_table, say, stdout
from retrieval.options import COUNT, DEVICE, JSON, SEED, DatasetOptions, filled
from training.errors import ResourceError

NO_ITEMS = (
    "likeness not measured: the dataset does not say which images show one item; name the column "
    "of labels.csv that does with --item-column"
)
NOT_MEASURED = {
    "combinations": "no combination has enough images in this split; none measured",
    "likeness": "likeness not measured: no image has 1 to 4 others of its item here",
    "manipulation": "manipulation not measured: no image has the labels of any other but one",
    "without": "requests without a value not measured: too few labelled images",
    "ties": "ties not measured: fewer than eleven images",
}
"""Field of an `Evaluation` -> what is said where it is None."""


@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    """What `retrieve evaluate` is told."""

    checkpoint: Annotated[Path, "The trained model."]
    split: Annotated[str, "A split of the dataset, or all."] = "test"
    mode: Annotated[str, click.Choice(["type", "value"])] = "type"
    floor: Annotated[bool, "Also the average-pooled features of this backbone."] = False
    combinations: Annotated[
        int, click.IntRange(min=0), "Combinations of two and three values to search by; 0: none."
    ] = 50
    combination_queries: Annotated[int, COUNT] = 20
    likeness_only: Annotated[
        bool,
        "Rank combinations by likeness under the named values and nothing else: for models whose "
        "heads no loss has taught to predict values.",
    ] = False
    max_queries: Annotated[int | None, COUNT, "Of MAP, rank only about so many."] = None
    seed: Annotated[int, SEED, "Of draws and intervals."] = 0
    out: Annotated[Path | None, "Folder of the reports [default: RUN/evaluation]."] = None
    cache: Annotated[
        Path | None,
        "Folder that keeps the backbone's maps for the next checkpoint of the same backbone.",
    ] = None
    device: Annotated[str, DEVICE]
    workers: Annotated[int, click.IntRange(min=0), "Decoding threads."] = 2
    as_json: Annotated[bool, JSON]


@click.command("evaluate")
@filled(Options)
def command(options: Options) -> int:
    """Measure attribute-specific MAP with chance and intervals, combinations, likeness, ties,
    requests that exchange or exclude a value, and predicted labels.

    Prints tables and writes them as JSON and Markdown. Values are matched with the model's by name.
    """
    from retrieval.evaluation import report, scorer
    from retrieval.evaluation.attribute_map import evaluate_attributes
    from retrieval.evaluation.combinations import draw_combinations, save_combinations
    from retrieval.evaluation.encoded_split import align_dataset, encode_split
    from retrieval.evaluation.tagging import evaluate_tags
    from retrieval.tags import thresholds
    from training.checkpoint import load_checkpoint
    from training.device import choose_device, keep_freed_memory

    keep_freed_memory()

    seed, mode = options.seed, options.mode
    loaded = load_checkpoint(options.checkpoint, choose_device(options.device).device)
    aligned = align_dataset(options.load(loaded.schema), loaded.schema)
    dataset = aligned.dataset
    split = dataset.split_called(options.split)
    encoded = encode_split(
        loaded.model, dataset, split, loaded.preprocessing, options.workers, cache=options.cache
    )
    part, bank, failures = encoded.dataset, encoded.bank, encoded.failures
    for path, reason in failures[:5]:
        say(f"left out {path}: {reason}")

    own = scorer.DescriptorScorer.of(bank, part.schema)
    by = scorer.ConditionScorer(bank, part.schema) if options.likeness_only else own
    ranking = report.Ranking(by, bank.embed)
    if mode == "type" and loaded.model.values is not None:  # its embeddings are descriptors
        ranking = report.Ranking(by, own.embed, own.embed_queries)
    wanted, most = options.combinations, options.max_queries
    drawn = draw_combinations(part, split, wanted, seed=seed) if wanted else []
    how = report.Protocols(
        combinations=drawn,
        combination_queries=options.combination_queries,
        mode="value" if mode == "value" else "type",
        max_queries=most,
        seed=seed,
    )
    found = report.evaluate_split(part, split, ranking, scorer.FloorScorer(bank.pooled), how)
    if options.floor:
        floor = evaluate_attributes(part, split, "type", scorer.floor_embed(bank), seed, most)
        found = replace(found, floor=floor)
    if loaded.model.values is not None and not options.likeness_only:
        least = thresholds(loaded.training, part.schema)
        found = replace(found, tags=evaluate_tags(part, bank.chances, seed, least))
    for name, why in NOT_MEASURED.items():
        if getattr(found, name) is None and (name != "combinations" or wanted):
            say(NO_ITEMS if name == "likeness" and part.items is None else why)

    data = report.to_json(found) | {
        "checkpoint": str(loaded.folder),
        "checkpoint_hash": loaded.hash,
        "training_seed": loaded.training.get("seed"),
        "parameters": loaded.model.parameters_of_embedder(),
        "images": len(part),
        "unreadable": len(failures),
        "unknown_to_model": aligned.unknown_to_model,
    }
    folder = options.out or options.checkpoint / "evaluation"
    split_name = re.sub(r"[^\w.-]", "_", split)  # of the user's own choice
    stem = f"{dataset.name}-{split_name}-{mode}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.json").write_text(json.dumps(data, indent=2) + "\n")
        # A folder's name may hold bytes that are not UTF-8.
        markdown = report.to_markdown(found).encode("utf-8", "backslashreplace")
        (folder / f"{stem}.md").write_bytes(markdown)
        if drawn:
            drawn_file = folder / f"{dataset.name}-{split_name}-combinations.json"
            save_combinations(drawn_file, drawn, part.schema, split, seed)
    except OSError as error:
        raise ResourceError(f"cannot write the reports to {folder}: {error}") from error
    if options.as_json:
        print_json(data)
    else:
        for table in report.to_tables(found):
            print_table(table)
        trained = f"{loaded.training.get('seed', 'unknown')} (training), {seed} (evaluation)"
        stdout.print(f"{data['definition']} Seeds: {trained}.", markup=False)
        say(f"written to {folder / stem}.json and .md", stdout)
    for who, names in (
        (f"{dataset.name} does not know", aligned.unknown_to_dataset),
        ("the model does not know", aligned.unknown_to_model),
    ):
        if names:  # last: what the figures above are not of
            say(f"left out, {who}: {', '.join(names)}")
    return 0
