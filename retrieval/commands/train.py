"""`retrieve train`: train an embedder on a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.console import print_json, stderr, stdout
from retrieval.dataset_options import dataset_options, item_option
from training.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from training.run import RunConfig
    from training.train_report import TrainReport

_LARGEST_SEED = 2**32 - 1


@click.command("train")
@dataset_options
@click.option("--attributes", metavar="A,B", help="Only these attributes of the dataset.")
@item_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with options.")
@click.option(
    "--variant",
    help="m2fashion, paper, without-asa, without-aca, without-readout, without-lower-stages, "
    "without-nuance, gmp; triplet, csn, asen or asenet-v2.",
)
@click.option("--backbone", help="resnet18, resnet34, resnet50 (the default), resnet50v2 or small.")
@click.option("--stage", help="Last stage of the backbone: layer1 to layer4.")
@click.option(
    "--weights",
    metavar="FILE",
    help="Backbone weights: a .safetensors file, or imagenet (downloaded by torchvision).",
)
@click.option(
    "--freeze/--no-freeze",
    default=None,
    help="Keep the backbone as loaded and train on its stored maps [default: if --weights].",
)
@click.option("--epochs", type=click.IntRange(min=1))
@click.option("--batch-size", type=click.IntRange(min=2))
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True))
@click.option("--image-size", type=click.IntRange(min=32))
@click.option("--seed", type=click.IntRange(0, _LARGEST_SEED))
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True)
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    attributes: str | None,
    item_column: str | None,
    out: Path,
    config: Path | None,
    variant: str | None,
    backbone: str | None,
    stage: str | None,
    weights: str | None,
    freeze: bool | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    image_size: int | None,
    seed: int | None,
    device: str,
    workers: int,
    resume: bool,
    as_json: bool,
) -> int:
    """Train an embedder on the train split, choosing the best epoch on the valid split.

    \b
    retrieve train --dataset darn --backbone resnet50 --weights imagenet --out runs/darn

    Several GPUs: torchrun --nproc-per-node 4 -m retrieval.cli train ... (each takes its share of
    every batch; the losses are those of the whole batch).
    """
    from indexer.device import choose_device
    from retrieval.progress_bars import TrainingBars
    from retrieval.validation import validation_map
    from training.allocator import keep_freed_memory
    from training.datasets import load_dataset
    from training.distributed import joined
    from training.models.config import VARIANTS, ModelConfig
    from training.models.config import variant as with_variant
    from training.recipe import Recipe
    from training.run import RunConfig, Setting, names_freezing, read_config, run_training
    from training.sources import validation_rows
    from training.train_report import Progress
    from training.validated import validated

    keep_freed_memory()

    base = read_config(config) if config is not None else RunConfig()
    model = base.model
    if variant is not None:
        if variant not in VARIANTS:
            raise UsageError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)}")
        model = with_variant(variant, model)
    model = validated(
        ModelConfig,
        model.to_json() | _given(backbone=backbone, stage=stage),
        "options",
    )
    chosen_weights = weights if weights is not None else base.weights
    recipe = validated(
        Recipe,
        base.recipe.to_json()
        | _given(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
        "options",
    )
    if freeze is not None:
        recipe = replace(recipe, freeze_backbone=freeze)
    elif config is None or not names_freezing(config):
        recipe = replace(recipe, freeze_backbone=chosen_weights is not None)
    if recipe.freeze_backbone and chosen_weights is None:
        raise UsageError(
            "a backbone with random weights is not worth freezing; pass --weights FILE, "
            "or --no-freeze to train it from scratch"
        )
    preprocessing = base.preprocessing
    if image_size is not None:
        preprocessing = replace(preprocessing, size=image_size)
    run = RunConfig(
        model, recipe, preprocessing, chosen_weights, base.seed if seed is None else seed
    )
    dataset = load_dataset(name, root, _attributes(attributes), item_column)
    choice = choose_device(device)
    copies = run.recipe.stored_copies
    images = len(dataset.rows_of("train")) * (1 + copies) + len(validation_rows(dataset))
    with joined(choice.device) as (processes, where):
        if processes.first:
            stderr.print(_headline(run, len(dataset), where), markup=False, soft_wrap=True)
        if not resume:
            _make_folder(out)
        with TrainingBars(images) as bars:
            setting = Setting(where, workers, resume, validation_map, processes)
            told = bars if processes.first else Progress()
            report = run_training(dataset, run, out, setting, told)
    if not processes.first:
        return 0
    failures = sorted(set(report.failures))
    for path, reason in failures[:5]:
        stderr.print(f"skipped {path}: {reason}", markup=False, soft_wrap=True)
    if failures:
        stderr.print(f"{len(failures)} images could not be read and were skipped", markup=False)
    data = _to_json(report, run, len(failures))
    if as_json:
        print_json(data)
    else:
        _print(report)
    return 0


def _attributes(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"--attributes {text!r} holds an empty name; give e.g. colour,pattern")
    return names


def _make_folder(out: Path) -> None:
    """Make the run's folder now: that it cannot be made should not be found after an epoch."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {out}: {error.strerror}") from error


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _headline(run: RunConfig, images: int, device: str) -> str:
    how = "frozen" if run.recipe.freeze_backbone else "trained"
    return (
        f"{images:,} images; {run.model.backbone} to {run.model.stage} ({how}) at "
        f"{run.preprocessing.size} px on {device}; {run.recipe.epochs} epochs, seed {run.seed}"
    )


def _to_json(report: TrainReport, run: RunConfig, skipped: int) -> dict[str, Any]:
    return {
        "run": str(report.out),
        "checkpoint": str(report.out / "best"),
        "images": report.images,
        "skipped": skipped,
        "seed": run.seed,
        "best_epoch": report.best_epoch,
        "validation_map": report.best_validation,
        "seconds": round(sum(e.seconds for e in report.epochs), 3),
        "epochs": [
            {
                "epoch": e.epoch,
                "losses": {k: round(v, 6) for k, v in e.losses.items()},
                "validation_map": e.validation,
                "seconds": round(e.seconds, 3),
            }
            for e in report.epochs
        ],
    }


def _print(report: TrainReport) -> None:
    figure = "" if report.best_validation is None else f", valid MAP {report.best_validation:.2f} %"
    stdout.print(
        f"best epoch {report.best_epoch}{figure}; checkpoint {report.out / 'best'}",
        markup=False,
        soft_wrap=True,
    )
