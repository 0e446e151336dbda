"""What a run goes on from: killed anywhere, with other data or weights, damaged, on a full disk."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_trainer import CONFIG, _run
from tiny_catalogue import write_tiny_catalogue

from training import checkpoint, run_folder
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError, ResourceError
from training.models.backbones import build_backbone
from training.models.registry import build_model
from training.optimisation import build_optimizer
from training.run_folder import read_last, save_last
from training.train_report import EpochReport, TrainReport

TWO = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=2))


class _Killed(BaseException):
    """What a kill is to the code that it hits."""


class _Killer:
    """Kills at the n-th of the steps by which a folder changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for place, name in (
            (run_folder, "save_checkpoint"),
            (run_folder, "save"),
            (checkpoint.os, "replace"),
            (os, "rename"),
        ):
            monkeypatch.setattr(place, name, self._wrap(getattr(place, name)))
        remove = shutil.rmtree

        def removed(path: Path, ignore_errors: bool) -> None:
            if Path(path).exists():
                self._step(lambda: (Path(path) / "state.json").unlink(missing_ok=True))
            remove(path, ignore_errors=ignore_errors)

        monkeypatch.setattr(run_folder.shutil, "rmtree", removed)

    def _wrap(self, function: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **options: object) -> object:
            self._step(lambda: None)
            return function(*args, **options)

        return called

    def _step(self, half: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0:
            half()
            raise _Killed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "shapes", 42)))


class _Saved:
    """A model and its optimizer whose weights tell how many epochs they have had."""

    def __init__(self, dataset: Dataset, out: Path) -> None:
        self.dataset, self.report = dataset, TrainReport(out)
        self.model = build_model(dataset.schema, CONFIG.model, 2)
        self.optimizer = build_optimizer(self.model, CONFIG.recipe)

    def epoch(self) -> None:
        done = len(self.report.epochs) + 1
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
            parameter.data.fill_(done)
        self.optimizer.step()
        with torch.no_grad():
            self.model.reduce.weight.fill_(done)
        self.report.epochs.append(EpochReport(done, {}, None, 1.0))

    def save(self) -> None:
        save_last(
            self.report, self.model, self.optimizer, self.dataset, CONFIG.preprocessing,
            CONFIG.recipe, 0, {"epoch": len(self.report.epochs)},
        )  # fmt: skip


def _check(out: Path, allowed: set[int]) -> None:
    """All that is read is of one and the same epoch."""
    found = read_last(out)
    done = len(found.state["epochs"])
    assert done in allowed
    assert found.checkpoint.training["epoch"] == done
    assert found.checkpoint.model.state_dict()["reduce.weight"].unique().tolist() == [done]
    assert {int(t) for k, t in found.optimizer.items() if k.endswith(".step")} == {done}


def test_killed_anywhere_in_a_save_an_epoch_is_there_as_a_whole(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = _Killer(monkeypatch)
    for number in range(1, 100):
        out = tmp_path / f"killed-{number}"
        saved = _Saved(dataset, out)
        saved.epoch()
        saved.save()
        saved.epoch()
        killer.left = number
        try:
            saved.save()
        except _Killed:
            killer.left = 0
        else:
            break
        _check(out, {1, 2})
        saved.epoch()
        killer.left = number  # again, from what the first kill has left
        with suppress(_Killed):
            saved.save()
        killer.left = 0
        _check(out, {1, 2, 3})
        saved.save()
        _check(out, {3})
        assert [path.name for path in out.iterdir()] == ["last"]
    assert number > 8


def test_other_images_or_labels_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    config = replace(TWO, recipe=replace(TWO.recipe, epochs=1))
    _run(dataset, tmp_path / "run", config)
    _run(dataset, tmp_path / "run", config, resume=True)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(dataset.root, elsewhere)
    text = (elsewhere / "labels.csv").read_text()
    for old, new, refused in (
        (",test,red,", ",test,blue,", False),
        (",train,red,", ",train,blue,", True),
        (",valid,", ",train,", True),
    ):
        assert old in text
        (elsewhere / "labels.csv").write_text(text.replace(old, new, 1))
        changed = load_dataset(str(elsewhere))
        if refused:
            with pytest.raises(DataError, match="other training or validation images"):
                _run(changed, tmp_path / "run", config, resume=True)
        else:
            _run(changed, tmp_path / "run", config, resume=True)


def test_other_weights_of_a_frozen_backbone_are_refused_before_the_maps_are_made(
    dataset: Dataset, tmp_path: Path
) -> None:
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        paths.append(str(tmp_path / f"{seed}.safetensors"))
        save_file(build_backbone("small", "layer3").state_dict(), paths[-1])
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, backbone="small", stage="layer3"),
        recipe=replace(TWO.recipe, epochs=1, freeze_backbone=True, copies=0),
        weights=paths[0],
    )
    out = tmp_path / "runs" / "one"
    _run(dataset, out, config)
    kept = sorted((out.parent / "cache").iterdir())
    with pytest.raises(DataError, match="other weights of the frozen backbone"):
        _run(dataset, out, replace(config, weights=paths[1]), resume=True)
    assert sorted((out.parent / "cache").iterdir()) == kept


def test_what_is_damaged_is_named(dataset: Dataset, tmp_path: Path) -> None:
    _run(dataset, tmp_path / "run", replace(TWO, recipe=replace(TWO.recipe, epochs=1)))
    last = tmp_path / "run" / "last"
    state, optimizer = last / "state.json", last / "optimizer.safetensors"
    kept, tensors = state.read_text(), load_file(optimizer)
    without = {k: v for k, v in json.loads(kept).items() if k != "best_epoch"}
    for text in ("[]", "{}", "", json.dumps(without)):
        state.write_text(text)
        with pytest.raises(DataError, match=r"state\.json is damaged"):
            _run(dataset, tmp_path / "run", TWO, resume=True)
    state.write_text(kept.replace('"epochs": 1,', '"epochs": 2,'))
    some = next(name for name in tensors if name.endswith(".exp_avg"))
    for changed in (
        {k: v for k, v in tensors.items() if k != some},
        tensors | {some: torch.zeros(3)},
        tensors | {"x.step": torch.zeros(())},
    ):
        save_file(changed, optimizer)
        with pytest.raises(DataError, match="state of the optimizer is damaged"):
            _run(dataset, tmp_path / "run", TWO, resume=True)
    save_file(tensors, optimizer)
    _run(dataset, tmp_path / "run", TWO, resume=True)


def test_a_full_disk_is_told_and_leaves_what_was_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    full = False

    def written(path: Path, content: bytes) -> int:
        if full and path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", written)
    _run(dataset, tmp_path / "run", replace(TWO, recipe=replace(TWO.recipe, epochs=1)))
    state = tmp_path / "run/last/state.json"
    state.write_text(state.read_text().replace('"epochs": 1,', '"epochs": 2,'))
    full = True
    with pytest.raises(ResourceError, match="No space left"):
        _run(dataset, tmp_path / "run", TWO, resume=True)
    full = False
    report, losses = _run(dataset, tmp_path / "run", TWO, resume=True)
    assert [epoch.epoch for epoch in report.epochs] == [1, 2]
    assert losses


def test_others_may_read_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        _run(dataset, tmp_path / "run", replace(TWO, recipe=replace(TWO.recipe, epochs=1)))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    assert len(files) == 4 + 6
