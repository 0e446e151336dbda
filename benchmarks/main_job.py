"""The main job on photographs, timed: train, build-index, evaluate.

    retrieve bench main-job --dataset data/fashion-products --weights resnet18.safetensors

The gallery is the test split: no image of it was trained on. Interrupted, the same command goes on
where it stopped, and its seconds are of what was left. Writes the figures to `benchmarks/results/`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.command_line import retrieve, retrieve_json
from benchmarks.machine import commit_name, machine_name
from benchmarks.tables.keys import data_hash
from benchmarks.write_results import RESULTS, write_results
from training.datasets import load_dataset
from training.run_folder import whole_last


@click.command("main-job")
@click.option("--dataset", "name", required=True, help="Name or folder of the dataset.")
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--weights", required=True, help="Backbone weights, kept frozen.")
@click.option("--epochs", type=click.IntRange(min=1))
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/main-job"))
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def command(
    name: str,
    backbone: str,
    weights: str,
    epochs: int | None,
    seeds: int,
    work: Path,
    results: Path,
) -> None:
    """Run the main job and write what it measured."""
    dataset = load_dataset(name)
    index = work / "index-0"
    options: list[Any] = ["--dataset", name, "--backbone", backbone, "--weights", weights]
    options += [] if epochs is None else ["--epochs", epochs]
    seconds = {}
    started = time.monotonic()
    resumed = train_or_resume(work / "run-0", options) or index.exists()
    seconds["train"] = _lap(started)
    arguments = ["--dataset", name, "--checkpoint", work / "run-0"]
    retrieve("build-index", *arguments, "--split", "test", "--out", index)
    seconds["build-index"] = round(_lap(started) - seconds["train"], 1)
    report: dict[str, Any] = json.loads(retrieve_json("evaluate", *arguments, "--floor"))
    seconds["all"] = _lap(started)
    seconds["evaluate"] = round(seconds["all"] - seconds["train"] - seconds["build-index"], 1)
    report["seconds"] = seconds
    report["resumed"] = resumed
    report["seeds"] = {"0": report["all"]["map"]}
    report["data"] = data_hash(dataset)
    report["commit"] = commit_name()
    report["machine"] = machine_name("auto")
    report["checkpoint"] = "run-0"  # where the run lies is this machine's business
    stem = f"main-{dataset.name}-{backbone}"
    write_results(results, stem, report, markdown(report))
    for seed in range(1, seeds):
        run = work / f"run-{seed}"
        train_or_resume(run, [*options, "--seed", seed])
        other = ["--dataset", name, "--checkpoint", run, "--combinations", 0]
        measured = json.loads(retrieve_json("evaluate", *other))
        report["seeds"][str(seed)] = measured["all"]["map"]
        write_results(results, stem, report, markdown(report))
    click.echo(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The figures as Markdown, for the README."""
    attributes, floor = report["attributes"], report["floor"]
    names = list(attributes)
    lines = [
        f"| {report['dataset']}, test, type mode, MAP % | {' | '.join(names)} | All |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    rows = {
        "M2Fashion": {**{n: attributes[n]["map"] for n in names}, "all": report["all"]["map"]},
        "average-pooled backbone features": {
            **{n: floor["attributes"][n]["map"] for n in names},
            "all": floor["all"]["map"],
        },
        "chance": {
            **{n: attributes[n]["chance"] for n in names},
            "all": report["all"]["chance"],
        },
    }
    for title, row in rows.items():
        lines.append(f"| {title} | " + " | ".join(f"{row[n]:.2f}" for n in [*names, "all"]) + " |")
    combined = report["combinations"]
    if combined is not None:
        same, but = combined["same"], combined["but"]
        lines += [
            "",
            "| values asked for | pictures that have them, precision@10 | "
            "pictures that lack them, precision@10 |",
            "|---|---:|---:|",
            f"| {combined['combinations']} combinations of two and three values | "
            f"{same['precision_at_10']:.2f} (ceiling {same['precision_ceiling']:.2f}) | "
            f"{but['precision_at_10']:.2f} (ceiling {but['precision_ceiling']:.2f}) |",
        ]
    left = ", of what an earlier call left" if report["resumed"] else ""
    seconds = report["seconds"]
    figures = [f"{figure:.2f}" for figure in report["seeds"].values()]
    lines += [
        "",
        f"M2Fashion, All, by training seed ({', '.join(report['seeds'])}): {', '.join(figures)}.",
        f"Seconds on {report['machine']}{left}: train {seconds['train']:.0f}, build-index "
        f"{seconds['build-index']:.0f}, evaluate {seconds['evaluate']:.0f}, "
        f"all {seconds['all']:.0f} (training seed 0, as the tables above).",
        "",
    ]
    return "\n".join(lines)


def train_or_resume(run: Path, options: list[Any]) -> bool:
    """Train a run, or what is left of it; whether there was something of it before."""
    resumed = whole_last(run) is not None
    retrieve("train", *options, "--out", run, *(["--resume"] if resumed else []))
    return resumed


def _lap(started: float) -> float:
    return round(time.monotonic() - started, 1)


if __name__ == "__main__":
    command()
