from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from retrieval.commands.train import validation_map
from training.checkpoint import FILES, load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError
from training.images.preprocessing import Preprocessing
from training.maps import MapBank
from training.models.config import Freeze, ModelConfig, variant
from training.recipe import Recipe
from training.report import Progress, TrainReport
from training.resume import read_last
from training.run import RunConfig, Setting, read_config, run_training
from training.sources import Photographs

CONFIG = RunConfig(
    ModelConfig(backbone="small", stage="layer2", grid=4, dim=32),
    Recipe(
        epochs=3,
        batch_size=20,
        freeze="none",
        learning_rate=3e-3,
        crop=0.8,
        precision="float32",
    ),
    Preprocessing(size=32),
)


class _Recorder(Progress):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.value: list[float] = []

    def step(self, losses: dict[str, float]) -> None:
        self.losses.append(losses["total"])
        self.value.append(losses["value"])


def _validate(bank: MapBank, dataset: Dataset) -> float:
    """Share of validation images whose nearest other image under the type condition agrees."""
    right = []
    for number in range(len(dataset.schema.attributes)):
        z = bank.embed(dataset.schema.type_condition(number), bank.rows)
        similarity = z @ z.T - 2 * np.eye(len(z))
        own = dataset.labels[:, dataset.schema.slice_of(number)]
        right.append((own == own[similarity.argmax(1)]).all(1).mean())
    return float(100 * np.mean(right))


VALIDATED = Setting(validate=_validate)


def _run(
    dataset: Dataset, out: Path, config: RunConfig, resume: bool = False
) -> tuple[TrainReport, list[float]]:
    recorder = _Recorder()
    report = run_training(dataset, config, out, Setting("cpu", 0, resume, _validate), recorder)
    return report, recorder.losses


@pytest.fixture(autouse=True)
def _unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The export, which `test_export.py` sees to, takes longer than these runs."""
    monkeypatch.setattr("training.run.export_checkpoint", lambda *_: None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "shapes")))


def _learned(dataset: Dataset, config: RunConfig, out: Path) -> tuple[_Recorder, TrainReport]:
    """Train, and see that it was learned."""
    recorder = _Recorder()
    report = run_training(dataset, config, out, VALIDATED, recorder)
    assert report.best_validation is not None
    assert report.best_validation > 75  # chance is about 44
    return recorder, report


def test_training_learns_and_keeps_its_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # it exports
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 300)))
    config = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=8, crop=1.0))
    recorder, report = _learned(dataset, config, tmp_path / "run")
    assert len(recorder.losses) == 8 * 10
    assert np.mean(recorder.value[-3:]) < 0.7 * np.mean(recorder.value[:3])
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.folder.name == "best"
    assert checkpoint.training["validation"] == report.best_validation
    assert checkpoint.categories == ("angular", "round")
    assert all((checkpoint.folder / name).is_file() for name in FILES)
    figures = [e.validation for e in report.epochs]
    assert report.best_validation == max(figures)  # type: ignore[type-var]


@pytest.mark.parametrize("sampling", ["batch", "triplets"])
@pytest.mark.parametrize("freeze", ["none", "stem", "all"])
def test_fault_33_resumed_training_goes_on_with_the_same_losses(
    dataset: Dataset, tmp_path: Path, freeze: Freeze, sampling: Literal["batch", "triplets"]
) -> None:
    recipe = replace(CONFIG.recipe, freeze=freeze, sampling=sampling, triplets_per_epoch=60)
    config = replace(CONFIG, recipe=recipe)
    all_at_once, whole = _run(dataset, tmp_path / "whole", config)
    assert len(whole) == 9

    class _Stop(Exception):
        pass

    class _StopAfterTwo(_Recorder):
        def end_epoch(self, report: object) -> None:
            if len(self.losses) == 6:
                raise _Stop

    recorder = _StopAfterTwo()
    with pytest.raises(_Stop):
        run_training(dataset, config, tmp_path / "part", VALIDATED, recorder)
    report, rest = _run(dataset, tmp_path / "part", config, resume=True)
    assert recorder.losses + rest == whole
    assert [e.epoch for e in report.epochs] == [1, 2, 3]
    figures = [[e.validation for e in r.epochs] for r in (all_at_once, report)]
    assert figures[0] == figures[1]
    final = [read_last(tmp_path / r).model for r in ("whole", "part")]
    assert all(torch.equal(final[0][k], final[1][k]) for k in final[0])


def test_a_run_ends_once_its_patience_is_over_and_has_nothing_to_resume(
    dataset: Dataset, tmp_path: Path
) -> None:
    figures = iter([50.0, 40.0, 60.0, 59.0, 60.0])
    setting = Setting(validate=lambda *_: next(figures))
    config = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=9, patience=2))
    report = run_training(dataset, config, tmp_path / "run", setting)
    assert [epoch.validation for epoch in report.epochs] == [50, 40, 60, 59, 60]
    assert report.best_epoch == 3
    again = run_training(dataset, config, tmp_path / "run", replace(setting, resume=True))
    assert again.epochs == report.epochs


@pytest.mark.parametrize("variant_name", ["without-readout", "asen"])
def test_sampled_triplets_train_a_model_that_tells_the_attributes_apart(
    tmp_path: Path, variant_name: str
) -> None:
    dataset = load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 300)))
    recipe = replace(CONFIG.recipe, epochs=6, sampling="triplets", triplets_per_epoch=200, crop=1.0)
    config = replace(CONFIG, model=variant(variant_name, CONFIG.model), recipe=recipe)
    recorder, report = _learned(dataset, config, tmp_path / "run")
    assert len(recorder.losses) == 6 * 10
    assert np.mean(recorder.losses[-10:]) < 0.6 * np.mean(recorder.losses[:5])
    assert {k for k, v in report.epochs[-1].losses.items() if v} == {"total", "triplet"}


@pytest.mark.parametrize("sampling", ["batch", "triplets"])
def test_an_image_that_breaks_while_it_is_trained_on_is_left_out(
    tmp_path: Path, sampling: Literal["batch", "triplets"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that do not fit into memory are read when their batch comes."""
    root = write_tiny_catalogue(tmp_path / "shapes", 30)
    (root / "images/005.png").write_bytes(b"not a picture")
    monkeypatch.setattr("training.run.Photographs", partial(Photographs, memory=0))
    recipe = replace(
        # Enough epochs for each picture's turn: half of a batch are partners of the other half.
        CONFIG.recipe,
        epochs=6,
        batch_size=10,
        sampling=sampling,
        triplets_per_epoch=20,
    )
    recorder = _Recorder()
    config = replace(CONFIG, recipe=recipe)
    report = run_training(load_dataset(str(root)), config, tmp_path / "run", VALIDATED, recorder)
    assert {path for path, _ in report.failures} == {"images/005.png"}
    assert len(recorder.losses) == 12
    assert np.isfinite(recorder.losses).all()


def test_resume_refuses_another_recipe_and_a_fresh_run_refuses_an_old_folder(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=1))
    _run(dataset, tmp_path / "run", config)
    with pytest.raises(UsageError, match="--resume"):
        _run(dataset, tmp_path / "run", config)
    other = replace(config, recipe=replace(config.recipe, margin=0.3))
    with pytest.raises(DataError, match=r"margin: 0\.2 there, 0\.3 here"):
        _run(dataset, tmp_path / "run", other, resume=True)
    without = replace(config, model=replace(config.model, lower_stages=False))
    with pytest.raises(DataError, match="lower_stages: True there, False here"):
        _run(dataset, tmp_path / "run", without, resume=True)
    with pytest.raises(DataError, match="size: 32 there, 48 here"):
        _run(dataset, tmp_path / "run", replace(config, preprocessing=Preprocessing(48)), True)
    narrower = load_dataset(str(dataset.root), None, ["colour"])
    with pytest.raises(DataError, match="other attributes or values"):
        _run(narrower, tmp_path / "run", config, resume=True)
    with pytest.raises(DataError, match="nothing to resume"):
        _run(dataset, tmp_path / "new", config, resume=True)


def test_a_valid_split_that_tells_nothing_leaves_the_last_epoch(tmp_path: Path) -> None:
    """A query without anything relevant scores 0 whatever the model is."""
    root = write_tiny_catalogue(tmp_path / "shapes", 60)
    head, *lines = (root / "labels.csv").read_text().splitlines()
    kept, only = [], False
    for line in lines:
        if ",valid," in line and only:
            line = line.replace(",valid,", ",test,")
        only = only or ",valid," in line
        kept.append(line)
    (root / "labels.csv").write_text("\n".join([head, *kept]) + "\n")
    dataset = load_dataset(str(root))
    assert len(dataset.rows_of("valid")) == 1
    setting = Setting(validate=validation_map)
    report = run_training(dataset, CONFIG, tmp_path / "run", setting)
    assert (report.best_epoch, report.best_validation) == (3, None)
    assert [e.validation for e in report.epochs] == [None] * 3


def test_frozen_backbone_does_not_move_and_a_trained_one_does(
    dataset: Dataset, tmp_path: Path
) -> None:
    freezes: tuple[Freeze, ...] = ("none", "all")
    for freeze in freezes:
        config = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=1, freeze=freeze))
        torch.manual_seed(config.seed)
        out = tmp_path / freeze
        _run(dataset, out, config)
        torch.manual_seed(config.seed)
        from training.models.m2fashion import M2Fashion

        fresh = M2Fashion(dataset.schema, config.model, 2).state_dict()
        trained = load_checkpoint(out).model.state_dict()
        same = all(torch.equal(fresh[k], trained[k]) for k in fresh if k.startswith("backbone."))
        assert same == (freeze == "all")
        assert not torch.equal(fresh["reduce.weight"], trained["reduce.weight"])


def test_a_broken_training_image_is_skipped_and_counted(tmp_path: Path) -> None:
    root = write_tiny_catalogue(tmp_path / "shapes", 60)
    (root / "images/005.png").write_bytes(b"not a picture")
    broken = load_dataset(str(root))
    freezes: tuple[Freeze, ...] = ("none", "stem", "all")
    for freeze in freezes:
        config = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=1, freeze=freeze))
        report = run_training(broken, config, tmp_path / freeze, VALIDATED)
        assert {p for p, _ in report.failures} == {"images/005.png"}
        assert len(report.epochs) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recipe]\nepoch = 3", "unknown option 'epoch'"),
        ("[recipe]\nepochs = 'x'", "epochs = 'x': Expected `int`, got `str`"),
        ("recipe = 3", "recipe = 3: Expected `object`, got `int`"),
        ("[model", "cannot read"),
        ("[preprocessing]\nsize = 0", "size"),
        ("colour = 1", "unknown option 'colour'"),
    ],
)
def test_a_config_file_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / "c.toml")


def test_a_config_file_sets_every_table(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'weights = "imagenet"\nseed = 7\n[model]\nspatial = "tanh"\n'
        "[recipe]\nmargin = 1\n[preprocessing]\nsize = 96\n"
    )
    config = read_config(tmp_path / "c.toml")
    assert (config.weights, config.seed) == ("imagenet", 7)
    assert config.model.spatial == "tanh"
    assert config.recipe.margin == 1
    assert config.preprocessing.size == 96
