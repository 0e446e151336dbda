"""Training speed: every image once through the backbone, against three passes a triplet.

    retrieve bench training-speed --dataset data/street-clothing --weights resnet18.safetensors

Two ways to train the same model on the same images are measured in turns: the default recipe,
which forms all conditions and triplets of a batch on maps that each image gave once, and triplets
sampled over the split, of which every image goes through the backbone. On photographs with the
backbone trained, and on stored maps of a frozen one. Writes to `benchmarks/results/`.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.machine import commit_name, machine_name
from benchmarks.speed_up import MAPS, PHOTOGRAPHS, Row, measure, speed_up
from benchmarks.tables.keys import data_hash
from benchmarks.timed_training import Training
from benchmarks.training_speed_markdown import markdown
from benchmarks.write_results import RESULTS, write_results
from indexer.device import choose_device
from retrieval.console import counting, print_json
from retrieval.dataset_options import dataset_options
from training.allocator import keep_freed_memory
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.models.conditioned import ConditionedEmbedder
from training.models.config import ModelConfig, from_mapping
from training.models.registry import build_model
from training.precision import has_fast_bfloat16
from training.preprocessing import Preprocessing
from training.recipe import Recipe
from training.sources import Photographs, Source, StoredMaps

_ENDLESS = 1_000_000  # epochs; the clock ends a measurement


@click.command("training-speed")
@dataset_options
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--weights", metavar="FILE", help="Backbone weights [default: random].")
@click.option("--batch-size", type=click.IntRange(min=6), default=128, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(min=6),
    default=2048,
    show_default=True,
    help="Drawn from the train split; all are kept decoded in memory.",
)
@click.option("--image-size", type=click.IntRange(min=32), default=224, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help="Of one measurement, which ends with the step that passes them.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    backbone: str,
    weights: str | None,
    batch_size: int,
    images: int,
    image_size: int,
    seconds: float,
    rounds: int,
    seed: int,
    results: Path,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Measure training with every image once through the backbone against three passes."""
    keep_freed_memory()
    place = choose_device(device).device
    config = from_mapping(ModelConfig, {"backbone": backbone}, "options")
    whole = load_dataset(name, root)
    train = np.random.default_rng(seed).permutation(whole.rows_of("train"))
    dataset = whole.subset(np.sort(train[:images]))
    preprocessing = Preprocessing(size=image_size)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        for setting, frozen in ((PHOTOGRAPHS, False), (MAPS, True)):
            recipe = _recipe(batch_size, frozen, weights)
            models = [_model(dataset, config, weights, seed, recipe, place) for _ in range(3)]
            with counting("reading images", len(dataset)) as bar:
                source: Source
                if frozen:
                    folder = Path(cache)
                    source = StoredMaps(
                        models[0], dataset, preprocessing, folder, place, workers, bar, recipe
                    )
                else:
                    pixels = len(dataset) * 3 * image_size**2
                    source = Photographs(dataset, preprocessing, workers, bar, memory=pixels)
            trainings = [
                Training(model, dataset, source, one, seed, place)
                for model, one in zip(models, _ways(recipe), strict=True)
            ]
            rows += measure(setting, trainings, seconds, rounds)
    data: dict[str, Any] = {
        "dataset": dataset.name,
        "model": "M2Fashion",
        "backbone": backbone,
        "pretrained": weights is not None,
        "batch_size": batch_size,
        "images": len(dataset),
        "image_size": image_size,
        "precision": "bfloat16" if has_fast_bfloat16(place.partition(":")[0]) else "float32",
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "rounds": rounds,
        "seed": seed,
        "data": data_hash(dataset),
        "commit": commit_name(),
        "machine": machine_name(device),
        "rows": [_rounded(asdict(row) | {"median": asdict(row.rate)}) for row in rows],
        "speed_ups": [_rounded(asdict(speed_up(rows, s))) for s in (PHOTOGRAPHS, MAPS)],
    }
    text = markdown(data)
    write_results(results, f"training-speed-{dataset.name}-{backbone}", data, text)
    if as_json:
        print_json(data)
    else:
        click.echo(text)


def _recipe(batch_size: int, frozen: bool, weights: str | None) -> Recipe:
    """The default recipe as `run_training` applies it."""
    return Recipe(
        epochs=_ENDLESS,
        batch_size=batch_size,
        freeze_backbone=frozen,
        # Batch norms that never saw data have nothing to keep.
        freeze_norm=frozen or weights is not None,
    )


def _ways(recipe: Recipe) -> tuple[Recipe, Recipe, Recipe]:
    """Ours, and three passes with as many images a batch, and with a triplet for each of ours."""
    sampled = replace(recipe, sampling="triplets")
    return recipe, replace(sampled, batch_size=recipe.batch_size // 3), sampled


def _model(
    dataset: Dataset,
    config: ModelConfig,
    weights: str | None,
    seed: int,
    recipe: Recipe,
    device: str,
) -> ConditionedEmbedder:
    torch.manual_seed(seed)
    model = build_model(dataset.schema, config, len(dataset.category_names), weights)
    model.to(device)
    if not recipe.freeze_backbone:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _rounded(value: Any) -> Any:
    """JSON-ready figures to two decimals, however deep."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 2) if isinstance(value, float) else value
