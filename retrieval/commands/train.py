"""`retrieve train`: train an embedder on a dataset."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from retrieval.console import Bars, print_json, say, stdout
from retrieval.options import COUNT, DEVICE, JSON, SEED, DatasetOptions, filled
from training.errors import ResourceError, UsageError
from training.models.config import ARCHITECTURES, BACKBONES, TIMM, VARIANTS
from training.report import EpochReport
from training.report import Progress as TrainerProgress
from training.threads import share

if TYPE_CHECKING:
    from training.datasets.dataset import Dataset
    from training.maps import MapBank
    from training.report import TrainReport
    from training.run import RunConfig


_GRACE = 30.0  # seconds that other processes have when one has failed


@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    """What `retrieve train` is told; what is None is as the config or the default has it."""

    out: Annotated[Path, "Folder of the run."]
    config: Annotated[Path | None, "TOML file with options."] = None
    variant: Annotated[
        str | None,
        f"{', '.join(VARIANTS)}; or a rival: {', '.join(list(ARCHITECTURES)[1:])}.",
    ] = None
    backbone: Annotated[
        str | None, f"{', '.join(BACKBONES)} or {TIMM}NAME [default: resnet50]."
    ] = None
    stage: Annotated[str | None, "Last stage of the backbone: layer1 to layer4."] = None
    weights: Annotated[
        str | None,
        "Backbone weights: a .safetensors file; imagenet, or a tag of timm's (downloads).",
    ] = None
    freeze: Annotated[
        str | None,
        click.Choice(["none", "stem", "all"]),
        "What of the backbone is kept as loaded and run once: the stem is all but its last stage "
        "[default: all with --weights, else none].",
    ] = None
    epochs: Annotated[int | None, COUNT] = None
    batch_size: Annotated[int | None, click.IntRange(min=2)] = None
    learning_rate: Annotated[float | None, click.FloatRange(min=0, min_open=True)] = None
    image_size: Annotated[int | None, click.IntRange(min=32)] = None
    seed: Annotated[int | None, SEED] = None
    device: Annotated[str, DEVICE]
    workers: Annotated[int, click.IntRange(min=0), "Decoding threads."] = 2
    processes: Annotated[int, COUNT, "Train by so many processes, a GPU each if there are."] = 1
    resume: Annotated[bool, "Go on after the last finished epoch of the run."] = False
    as_json: Annotated[bool, JSON]

    def given(self, *names: str) -> dict[str, Any]:
        """Those that were given on the command line."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@click.command("train")
@filled(Options)
def command(options: Options) -> int:
    """Train an embedder on the train split, choosing the best epoch on the valid split.

    \b
    retrieve train --dataset darn --backbone resnet50 --weights imagenet --out runs/darn

    --backbone timm:NAME is any trunk of timm ([timm]), shown pictures of the size, mean and
    deviation that timm's records tell, unless --image-size or the config say others.

    With --processes 4 each takes its share of every batch; the losses are those of the whole batch.
    They share the cores too; a number of threads that is set is that of each.
    On several machines: torchrun --nnodes 2 --nproc-per-node 4 ... -m retrieval.cli train ...
    """
    run = _configured(options)
    if options.processes > 1 and "LOCAL_RANK" not in os.environ:
        words: list[str] = click.get_current_context().find_root().obj
        return _start(words, options.processes)

    from training.device import choose_device, keep_freed_memory
    from training.processes import joined
    from training.run import Setting, run_training
    from training.sources import validation_rows

    keep_freed_memory()
    dataset = options.load(quiet=int(os.environ.get("RANK", "0")) > 0)
    choice = choose_device(options.device)
    images = len(dataset.rows_of("train")) * (1 + run.recipe.stored_copies)
    images += len(validation_rows(dataset))
    with joined(choice.device) as (processes, where):
        if processes.first:
            how = {"none": "trained", "stem": "stem frozen", "all": "frozen"}[run.recipe.freeze]
            say(
                f"{len(dataset):,} images; {run.model.backbone} to {run.model.stage} ({how}) at "
                f"{run.preprocessing.size} px on {where}; {run.recipe.epochs} epochs, "
                f"seed {run.seed}"
            )
        try:  # now: that it cannot be made should not be found after an epoch
            if not options.resume:
                options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror
            raise ResourceError(f"cannot make the folder {options.out}: {why}") from error
        setting = Setting(where, options.workers, options.resume, validation_map, processes)
        with TrainingBars(images) as bars:
            told = bars if processes.first else TrainerProgress()
            report = run_training(dataset, run, options.out, setting, told)
    if not processes.first:
        return 0
    failures = sorted(set(report.failures))
    for path, reason in failures[:5]:
        say(f"skipped {path}: {reason}")
    if failures:
        say(f"{len(failures)} images could not be read and were skipped")
    if options.as_json:
        print_json(_to_json(report, run, len(failures)))
        return 0
    best = report.best_validation
    figure = "" if best is None else f", valid MAP {best:.2f} %"
    say(f"best epoch {report.best_epoch}{figure}; checkpoint {report.out / 'best'}", stdout)
    if report.export is not None:
        files = ", ".join(f"{file} ({told})" for file, told in report.export.told.items())
        say(f"exported {files}", stdout)
    return 0


def _start(words: list[str], count: int) -> int:
    """Run this command in `count` processes that join each other; the first exit code but 0.

    When one has failed the others have a while to say so, and are then ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    home = str(Path(__file__).resolve().parents[2])
    env = os.environ | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env["OMP_NUM_THREADS"] = str(share(count))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    # -P: a folder `training` where one works is not ours.
    command = [sys.executable, "-P", "-m", "retrieval.cli", *words]
    children = [
        subprocess.Popen(command, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    left = _GRACE
    try:
        while any(child.poll() is None for child in children) and left > 0:
            time.sleep(0.1)
            left -= 0.1 if any(child.poll() for child in children) else 0
    finally:
        for child in children:
            child.terminate()
        codes = [child.wait() for child in children]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _configured(options: Options) -> RunConfig:
    """The config, changed by the options."""
    from training.models.backbones import pictures_of
    from training.models.config import ModelConfig
    from training.models.config import variant as with_variant
    from training.recipe import Recipe
    from training.run import RunConfig, named_in, read_config
    from training.validated import validated

    base = RunConfig() if options.config is None else read_config(options.config)
    model, preprocessing = base.model, base.preprocessing
    if options.variant is not None:
        model = with_variant(options.variant, model)
    model = validated(ModelConfig, model.to_json() | options.given("backbone", "stage"), "options")
    weights = base.weights if options.weights is None else options.weights
    given = options.given("epochs", "batch_size", "learning_rate", "freeze")
    if options.config is None or "freeze" not in named_in(options.config, "recipe"):
        given = {"freeze": "none" if weights is None else "all"} | given
    recipe = validated(Recipe, base.recipe.to_json() | given, "options")
    if recipe.freeze != "none" and weights is None:
        raise UsageError(
            "a backbone with random weights is not worth freezing; pass --weights FILE, "
            "or --freeze none to train it from scratch"
        )
    named = set() if options.config is None else named_in(options.config, "preprocessing")
    shown = pictures_of(model.backbone, weights)
    preprocessing = replace(preprocessing, **{k: v for k, v in shown.items() if k not in named})
    if options.image_size is not None:
        preprocessing = replace(preprocessing, size=options.image_size)
    seed = base.seed if options.seed is None else options.seed
    return RunConfig(model, recipe, preprocessing, weights, seed)


class TrainingBars(Bars, TrainerProgress):
    """A bar an epoch with the running losses, and a line with their means; before the first epoch a
    bar over the `images` that are read, or encoded by a frozen backbone."""

    def __init__(self, images: int) -> None:
        super().__init__(unit="")
        self._images, self._title = images, ""

    def encoded(self, count: int) -> None:
        """Count images that were read before the first epoch."""
        if not self._title:
            self._title = "reading images"
            self.start(self._title, self._images)
        self.advance(count)

    def start_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """Open the epoch's bar."""
        self._title = f"epoch {epoch}/{epochs}"
        self.start(self._title, steps)

    def step(self, losses: dict[str, float]) -> None:
        """Advance, and show the losses of the batch."""
        self.advance(1, _shown(losses))

    def end_epoch(self, report: EpochReport) -> None:
        """Print the epoch's line."""
        figure = "" if report.validation is None else f"  valid MAP {report.validation:.2f} %"
        self.say(f"{self._title}  {_shown(report.losses)}{figure}  {report.seconds:.0f} s")

    def exporting(self) -> None:
        """Say so: it takes seconds."""
        self.say("exporting the best epoch to ONNX")


def _shown(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if value)


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
        "export": None if report.export is None else report.export.to_json(),
        "epochs": [
            {
                "epoch": e.epoch,
                "losses": {name: round(value, 6) for name, value in e.losses.items()},
                "validation_map": e.validation,
                "seconds": round(e.seconds, 3),
            }
            for e in report.epochs
        ],
    }


def validation_map(bank: MapBank, dataset: Dataset) -> float | None:
    """MAP (percent, query-weighted, type mode) on the `valid` split, its rows the bank's; None if
    nothing in it is relevant to any of its queries: it cannot tell one model from another."""
    from retrieval.evaluation.attribute_map import evaluate_attributes

    found = evaluate_attributes(dataset, "valid", "type", bank.embed).all
    return None if found.queries_without_relevant == found.queries else found.map
