"""How much the presence of named values should weigh beside likeness: a sweep on a valid split.

    python -m benchmarks.presence_weight --dataset fashion-products --checkpoint runs/fp

`same` and `but` as in `retrieve evaluate`; the choice is `retrieval.ranking.PRESENCE_WEIGHT`.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.split_images import load_for
from retrieval.evaluation.combination_score import evaluate_combinations
from retrieval.evaluation.combinations import draw_combinations
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.scoring import EarlierScorer
from training.checkpoint import load_checkpoint

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@click.command("presence-weight")
@click.option("--dataset", "name", required=True)
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path))
@click.option("--combinations", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def command(name: str, checkpoint: Path, combinations: int, seed: int) -> None:
    """Print one row of a Markdown table for each weight."""
    loaded = load_checkpoint(checkpoint)
    dataset = load_for(name, None, loaded.schema)
    encoded = encode_split(loaded.model, dataset, "valid", loaded.preprocessing, 2)
    part, bank = encoded.dataset, encoded.bank
    drawn = draw_combinations(part, "valid", combinations, seed=seed)
    click.echo("| weight | same MAP | same P@10 | but P@10 | but keep@10 |")
    click.echo("|---:|---:|---:|---:|---:|")
    for weight in WEIGHTS:
        scorer = EarlierScorer(bank, part.schema, weight)
        report = evaluate_combinations(part, "valid", scorer, drawn, 10, seed)
        same, but = report.same, report.but
        keep = "-" if but.keep_at_10 is None else f"{but.keep_at_10:.3f}"
        click.echo(
            f"| {weight:g} | {same.map:.1f} | {same.precision_at_10:.3f} | "
            f"{but.precision_at_10:.3f} | {keep} |"
        )


if __name__ == "__main__":
    command()
